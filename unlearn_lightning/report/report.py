"""`build` turns a study folder into its report; the `unlearn report` command is a thin wrapper around it."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from unlearn_lightning.cli.terminal import printable, terminal_console
from unlearn_lightning.records import locked, write_text
from unlearn_lightning.records.gather import load
from unlearn_lightning.records.settings import read_yaml
from unlearn_lightning.records.study_data import Study
from unlearn_lightning.report.blocks import File, Prose, Table
from unlearn_lightning.report.chart import Chart
from unlearn_lightning.report.page import FINAL, live_version, page, version_picture
from unlearn_lightning.report.print_figures import save_figures
from unlearn_lightning.report.section import Material, Section, Verdict
from unlearn_lightning.report.sections import sections


@dataclass
class Report:
    """What was found and where it was written."""

    study: Study
    sections: list[Section]
    verdict: Verdict
    problems: list[str]
    folder: Path
    files: list[Path] = field(default_factory=list)

    @property
    def sentences(self) -> list[str]:
        """What the sections say below the headline."""
        return [sentence for section in self.sections for sentence in section.said(self.verdict)]

    @property
    def charts(self) -> list[Chart]:
        """All figures in reading order."""
        return [chart for section in self.sections for chart in section.charts]

    @property
    def tables(self) -> dict[str, Table]:
        """Every table that has files, by name."""
        return {table.name: table for section in self.sections for table in section.tables if table.in_files}

    @property
    def config(self) -> dict[str, Any]:
        """The study's whole configuration; empty where it has none."""
        return dict(read_yaml(self.study.folder / "study.yaml"))

    @property
    def figures(self) -> dict[str, Path]:
        """Every figure's PNG file, by its key."""
        return {path.stem: path for path in self.files if path.suffix == ".png"}

    @property
    def summary(self) -> dict[str, Any]:
        """JSON-able: the verdict, what is missing, and what each section adds, such as one entry per objective and path."""
        found: dict[str, Any] = {
            "study": self.study.name,
            "verdict": {"headline": self.verdict.headline, "agrees": self.verdict.agrees},
        }
        for section in self.sections:
            found |= section.summary()
        return {**found, "problems": self.problems}

    @property
    def compared(self) -> dict[str, float]:
        """Single numbers by which a sweep compares its trials, by the names they have in W&B."""
        return dict(self.summary.get("compared", {}))

    def print(self, console: Console | None = None) -> None:
        """The sections' tables for the terminal, the verdict, what is missing, and where the page lies."""
        console = console or terminal_console()
        for table in (table for section in self.sections for table in section.tables if table.on_terminal):
            console.print(table.terminal(), "")
        console.print(f"\n{printable(self.verdict.headline)}", style="bold", highlight=False, markup=False)
        for problem in self.problems:
            console.print(f"! {printable(problem)}", style="yellow", highlight=False, markup=False)
        for block in (block for section in self.sections for block in section.shown if isinstance(block, Prose) and block.warns):
            console.print(printable(block.text), style="yellow", highlight=False, markup=False, soft_wrap=True)
        console.print(f"Report: {self.folder / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
        figures = f", table.md and {n} figure{'s' * (n > 1)} (SVG, PNG) in figures/" if (n := len(self.charts)) else " and table.md"
        console.print(f"  beside it table.csv{figures}; all tables in tables/", highlight=False)


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
    study = load(Path(study_folder))  # Nothing is written where there is no study.
    other = Material(load(Path(against))) if against else None
    folder = Path(out) if out else Path(study_folder) / "report"
    # One builder at a time: a study and those who watch it may want the same page.
    with locked(folder):
        return _build(Material(study, other, match_at), folder, live)


def _build(material: Material, folder: Path, live: bool) -> Report:
    study = material.study
    folder.mkdir(parents=True, exist_ok=True)
    found = sections(material)
    shown = [section for section in found if section.shown]
    candidates = [verdict for section in found if (verdict := section.own_verdict)]
    verdict = max(candidates, key=lambda one: one.weight, default=Verdict("Nothing was measured."))
    report = Report(study, found, verdict, [], folder)
    # Runs know what is wrong with records once they were looked at, so that they are asked last.
    report.problems = [*material.left_out, *(problem for section in found for problem in section.problems())]
    report.problems += [problem for run in study.runs for problem in run.problems]
    if other := material.against:
        report.problems += [f"In {other.study.name}: {problem}" for run in other.study.runs for problem in run.problems]
    version = live_version(study) if live else FINAL
    texts = {
        # The closing table, where there is one: it is a file of its section.
        "table.csv": next((table.csv() for table in report.tables.values()), ""),
        "table.md": "\n".join(markdown for section in shown if (markdown := _markdown(section))),
        "index.html": page(study, verdict, found, report.problems, version),
        **{f"tables/{name}.{kind}": text for name, table in report.tables.items() for kind, text in _as_files(table)},
        **{block.name: block.content for section in shown for block in section.shown if isinstance(block, File)},
    }
    for name, content in texts.items():
        write_text(folder / name, content)
        report.files.append(folder / name)
    report.files += save_figures(report.charts, folder / "figures")
    write_text(folder / "version.svg", version_picture(version))
    return report


def _as_files(table: Table) -> list[tuple[str, str]]:
    return [("csv", table.csv()), ("md", table.markdown())]


def _markdown(section: Section) -> str:
    parts = [part for block in section.shown for part in block.in_markdown()]
    return "\n\n".join([f"## {section.heading}", *filter(None, [section.caption, *parts])]) + "\n" if parts else ""
