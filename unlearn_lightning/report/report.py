"""`build` turns a study folder into its report; the `unlearn report` command is a thin wrapper around it."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from unlearn_lightning.records import locked, write_text
from unlearn_lightning.report.chart import Chart
from unlearn_lightning.report.charts import charts
from unlearn_lightning.report.comparison import Comparison, compare
from unlearn_lightning.report.comparison_tables import comparison_csv, comparison_markdown, comparison_table, print_comparison
from unlearn_lightning.report.computed_with import mixtures
from unlearn_lightning.report.dependence import CHANGES_CAPTION, DEPENDENCE_CAPTION, changes_table, dependence_table
from unlearn_lightning.report.depth import DEPTH_CAPTION, depth_charts, depths
from unlearn_lightning.report.depth_tables import depth_csv, depth_table, print_depth
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.further_stages import FURTHER_CAPTION, further_chart, further_table, series
from unlearn_lightning.report.gather import load
from unlearn_lightning.report.live import FINAL, live_version, write_version
from unlearn_lightning.report.matched import MatchedRow, compared_utilities, compared_utility, matched_forgetting
from unlearn_lightning.report.outcomes import OutcomeRow, summarize
from unlearn_lightning.report.page import Page
from unlearn_lightning.report.print_figures import save_figures
from unlearn_lightning.report.provenance import config_differences, run_table
from unlearn_lightning.report.recency import MEASURED, RECENCY_CAPTION, recency, recency_table
from unlearn_lightning.report.study_data import Study
from unlearn_lightning.report.tables import Table, closing_csv, closing_table, growth_table, matched_table, print_closing_table
from unlearn_lightning.report.terminal import terminal_console
from unlearn_lightning.report.verdict import Verdict, verdict


@dataclass
class Report:
    """What was found and where it was written."""

    study: Study
    rows: list[OutcomeRow]
    matched: list[MatchedRow]
    verdict: Verdict
    problems: list[str]
    folder: Path
    charts: list[Chart]
    comparison: Comparison | None = None
    tables: dict[str, Table] = field(default_factory=dict)
    """Every table beside the closing one, by name."""
    files: list[Path] = field(default_factory=list)
    compared: dict[str, float] = field(default_factory=dict)
    """Single numbers by which a sweep compares its trials, by the names they have in W&B."""

    @property
    def summary(self) -> dict[str, Any]:
        """JSON-able: the verdict, one entry per objective and path, and in how many seeds the last position was the slowest."""
        rows = [
            {
                "objective": row.objective, "p": row.path.p, "label": row.path.label, "path": list(row.path.stages), "seeds": row.seeds,
                "slowest": row.slowest,
                **{measure: {"mean": value.mean, "ci95": value.half_width, "n": value.n} for measure, value in row.values.items()},
            }
            for row in self.rows
        ]  # fmt: skip
        counted = {one.objective: {"last_is_slowest": one.share.hits, "seeds": one.share.n} for one in recency(self.study)}
        shares = {measure: {one.objective: one.share for one in recency(self.study, measure)} for measure in MEASURED}
        controls = {
            measure: {name: {"hits": share.hits, "n": share.n, "ci95": share.interval} for name, share in by_objective.items()}
            for measure, by_objective in shares.items()
        }
        found = {"headline": self.verdict.headline, "agrees": self.verdict.agrees}
        depth = [
            {
                "objective": one.objective, "path": list(one.path.stages), "paper": one.expected,
                "verdicts": [run.kind for run in one.outcomes], "margins": [run.margin for run in one.outcomes],
            }
            for one in depths(self.study)
        ]  # fmt: skip
        return {
            "study": self.study.name, "verdict": found, "rows": rows, "recency": counted, "recency_measures": controls,
            "depth": depth, "compared": self.compared, "problems": self.problems,
        }  # fmt: skip

    def print(self, console: Console | None = None) -> None:
        """The closing table, the verdict, what is missing, and where the page lies."""
        console = console or terminal_console()
        if self.rows:
            print_closing_table(console, self.rows, f"Study {self.study.name}, before and after unlearning", self.study.retain_title)
        if found := depths(self.study):
            print_depth(console, found)
        if self.comparison:
            console.print()
            print_comparison(console, self.comparison)
        console.print(f"\n{self.verdict.headline}", style="bold", highlight=False, markup=False)
        for problem in self.problems:
            console.print(f"! {problem}", style="yellow", highlight=False, markup=False)
        for line in mixtures(self.study):
            console.print(line, style="yellow", highlight=False, markup=False, soft_wrap=True)
        console.print(f"Report: {self.folder / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
        console.print(
            f"  beside it table.csv, table.md and {len(self.charts)} figures (SVG, PNG) in figures/; all tables in tables/", highlight=False
        )


def build(
    study_folder: Path, out: Path | None = None, against: Path | None = None, match_at: float | None = None, live: bool = False
) -> Report:
    """Write the report of a study, or of a folder of runs and studies, into `out` (default `<study>/report/`).

    It is index.html, table.csv, table.md, tables/ and figures/.

    Runs that are missing or unfinished, and probes that were not measured, are named and left out.

    Args:
        study_folder: the study, as `unlearn study` wrote it.
        out: where the report goes.
        against: another study to compare with.
        match_at: the forget score (nats) at which paths are compared; null for the largest that all reach.
        live: the study still runs; an open page then notices when a newer one is written, and loads it.

    Raises:
        FileNotFoundError: there is no study in `study_folder` or `against`.
        ValueError: a file has a format this version does not know.
    """
    load(Path(study_folder))  # Nothing is written where there is no study.
    folder = Path(out) if out else Path(study_folder) / "report"
    # One builder at a time: a study and those who watch it may want the same page.
    with locked(folder):
        return _build(Path(study_folder), folder, against, match_at, live)


def _build(study_folder: Path, folder: Path, against: Path | None, match_at: float | None, live: bool) -> Report:
    study = load(study_folder)
    other = load(Path(against)) if against else None
    folder.mkdir(parents=True, exist_ok=True)
    distances = Distances(study)
    rows = summarize(study, distances)
    drawn = [*depth_charts(study), *([further_chart(study)] if series(study)[0] else []), *charts(study, distances)]
    report = Report(study, rows, matched_forgetting(study, match_at), verdict(study, rows, distances), _missing(study), folder, drawn)
    if other:
        report.comparison = compare(study, rows, other, summarize(other, Distances(other)))
        report.problems += [f"In {report.comparison.names[1]}: {problem}" for problem in _missing(other)]
    if match_at is not None:
        report.compared["matched/utility"] = compared_utility(study, match_at)
        if far := [name for name, value in compared_utilities(study, match_at).items() if math.isnan(value)]:
            report.problems.append(f"The utility at a forget score of {match_at:g} was not measured near there in {', '.join(far)}")
        elif math.isnan(report.compared["matched/utility"]):
            report.problems.append(f"No utility at a forget score of {match_at:g}: no finished run measured both forgetting and retaining")
    report.tables = _tables(report, distances)
    report.problems += [*distances.problems, *(problem for run in study.runs for problem in run.problems)]
    if other:
        report.problems += [f"In {other.name}: {problem}" for run in other.runs for problem in run.problems]
    version = live_version(study) if live else FINAL
    page = Page(study, rows, report.verdict, report.problems, drawn, report.tables, report.comparison, version)
    closing = closing_table(rows, study.retain_title).markdown() if rows else ""
    deep = {"depth.csv": depth_csv(found)} if (found := depths(study)) else {}
    for name, content in (
        ("table.csv", comparison_csv(report.comparison) if report.comparison else closing_csv(rows)),
        ("table.md", closing + _more_markdown(report.tables) + (comparison_markdown(report.comparison) if report.comparison else "")),
        ("index.html", page.html()),
        *deep.items(),
        *((f"tables/{name}.{kind}", text) for name, table in report.tables.items() for kind, text in _as_files(table)),
    ):
        write_text(folder / name, content)
        report.files.append(folder / name)
    report.files += save_figures(drawn, folder / "figures")
    write_version(folder, version)
    return report


def _tables(report: Report, distances: Distances) -> dict[str, Table]:
    study = report.study
    tables = {
        "depth": depth_table(depths(study)),
        "recency": recency_table(study),
        "further_stages": further_table(study),
        "dependence": dependence_table(study, distances),
        "variants": changes_table(study, distances),
        "matched_forgetting": matched_table(report.matched, study.retain_title),
        "growth_rates": growth_table(study, distances),
        "unlearning_settings": config_differences(study, "unlearn"),
        "stage_settings": config_differences(study, "stage"),
        "runs": run_table(study),
    }
    if report.comparison:
        tables |= {"comparison": comparison_table(report.comparison), "comparison_settings": report.comparison.settings}
    return {name: table for name, table in tables.items() if table.rows}


def _as_files(table: Table) -> list[tuple[str, str]]:
    return [("csv", table.csv()), ("md", table.markdown())]


def _more_markdown(tables: dict[str, Table]) -> str:
    captions = {
        "depth": DEPTH_CAPTION, "recency": RECENCY_CAPTION, "further_stages": FURTHER_CAPTION, "dependence": DEPENDENCE_CAPTION,
        "variants": CHANGES_CAPTION,
    }  # fmt: skip
    return "".join(f"\n{caption}\n\n{tables[name].markdown()}" for name, caption in captions.items() if name in tables)


def _missing(study: Study) -> list[str]:
    """Names what is missing from the numbers, so that a reader knows it."""
    unknown: dict[str, list[str]] = {}  # seeds without the retrained model -> on which paths
    problems = [f"{run.name} failed: {run.info.get('error') or 'no message'}" for run in study.unfinished if run.status == "failed"]
    problems += [f"{run.name} is left out: {run.info['error']}" for run in study.unfinished if run.status == "unreadable"]
    problems += [f"{run.name} is not finished" for run in study.unfinished if run.status in ("running", "stopped")]
    waiting = [run.name for run in study.unfinished if run.status not in ("failed", "running", "stopped", "unreadable")]
    if waiting:
        more = f" and {len(waiting) - 5} more" if len(waiting) > 6 else ""
        problems.append(f"Not run: {', '.join(waiting[: 5 if more else 6])}{more}")
    only_families = depths(study) and not any(run.records("divergence") for run in study.finished("unlearn"))
    for path in study.paths:
        models = {seed: study.retrained(seed, path.stages) for seed in study.seeds}
        lacking = [seed for seed, model in models.items() if model is None or not model.records("divergence")]
        if lacking and study.finished("unlearn") and not only_families:
            unknown.setdefault(", ".join(map(str, lacking)), []).append(path.label)
    for seeds, labels in unknown.items():
        where = "" if len(labels) == len(study.paths) else f" on {', '.join(labels)}"
        problems.append(
            f"No distance to the retrained model for seed {seeds}{where}: no finished run without the forget stage has divergence records"
        )
    return problems
