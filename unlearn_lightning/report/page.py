"""`index.html`: one file with its data, styles and plotly.js inside, so that it opens anywhere and asks the network for nothing."""

import html
import json
import math
from dataclasses import asdict, dataclass
from importlib.resources import files
from string import Template
from typing import Any

from unlearn_lightning.report.chart import Chart
from unlearn_lightning.report.comparison import Comparison
from unlearn_lightning.report.comparison_tables import comparison_html
from unlearn_lightning.report.computed_with import mixtures
from unlearn_lightning.report.dependence import CHANGES_CAPTION, DEPENDENCE_CAPTION
from unlearn_lightning.report.depth import DEPTH_CAPTION
from unlearn_lightning.report.explorer import explorer
from unlearn_lightning.report.further_stages import FURTHER_CAPTION
from unlearn_lightning.report.live import FINAL
from unlearn_lightning.report.outcomes import OutcomeRow
from unlearn_lightning.report.provenance import totals, versions
from unlearn_lightning.report.recency import RECENCY_CAPTION
from unlearn_lightning.report.study_data import Study
from unlearn_lightning.report.tables import Table, closing_table, paper_table
from unlearn_lightning.report.verdict import Verdict


@dataclass
class Page:
    """Everything the page shows; `html` lays it out with the templates beside this file."""

    study: Study
    rows: list[OutcomeRow]
    verdict: Verdict
    problems: list[str]
    charts: list[Chart]
    tables: dict[str, Table]
    comparison: Comparison | None = None
    version: int = FINAL

    def html(self) -> str:
        """Renders the page as one HTML text that needs no other file: styles, script and data are part of it."""
        assets = files(__package__).joinpath("assets")
        read = {name: assets.joinpath(name).read_text(encoding="utf-8") for name in ("page.html", "page.css", "page.js")}
        plotly = files(__package__).joinpath("vendor", "plotly-basic.min.js").read_text(encoding="utf-8")
        found = explorer(self.study)
        data = {
            "paths": [asdict(path) for path in self.study.paths],
            "charts": {one.key: _numbers(one) for one in self.charts},
            "explorer": found,
            "version": self.version,
            "live": self.version != FINAL,
        }
        sections = [
            self._table_one(),
            self._depth(),
            self._recency(),
            self._comparison(),
            *(self._section_of(chart) for chart in self.charts),
            self._matched(),
            self._dependence(),
            self._explorer() if found["views"] else "",
            self._provenance(),
        ]
        return Template(read["page.html"]).substitute(
            title=html.escape(self.study.name),
            headline=html.escape(self.verdict.headline),
            summary="".join(f"<li>{html.escape(sentence)}</li>" for sentence in self.verdict.sentences),
            scope=html.escape(self._scope()),
            problems=self._problems(),
            live=self._live(),
            pictures=" file: 'self'" if self.version != FINAL else "",
            legend=self._legend(),
            hidden="" if any(line.paths for chart in self.charts for panel in chart.panels for line in panel.lines) else " hidden",
            sections="\n".join(section for section in sections if section),
            css=read["page.css"],
            data=json.dumps(_finite(data), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c"),
            plotly=plotly.replace("</script", "<\\/script"),
            js=read["page.js"],
        )

    def _scope(self) -> str:
        study, seeds = self.study, len(self.study.seeds)
        counts = [(len(study.paths), "path"), (len(study.objectives), "objective"), (seeds, "seed")]
        counted = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts)
        interval = " Bands and ± are 95% confidence intervals over seeds (Student's t)." if seeds > 1 else ""
        return f"Forget stage: {study.forget}. {counted}.{interval}"

    def _live(self) -> str:
        if self.version == FINAL:
            return ""
        finished = len(self.study.runs) - len(self.study.unfinished)
        return f'<p class="live">The study runs: {finished} of {len(self.study.runs)} runs are finished. This page follows by itself.</p>'

    def _problems(self) -> str:
        if not self.problems:
            return ""
        items = "".join(f"<li>{html.escape(problem)}</li>" for problem in self.problems)
        noun = "thing is" if len(self.problems) == 1 else "things are"
        title = f"{len(self.problems)} {noun} missing from this report"
        return f'<details class="problems" open><summary>{title}</summary><ul>{items}</ul></details>'

    def _legend(self) -> str:
        return "".join(
            f'<button type="button" data-path="{path.index}" aria-pressed="true" title="{html.escape(path.arrow)}">'
            f'<i class="dot c{path.index % 8}"></i>{html.escape(path.label)}</button>'
            for path in self.study.paths
        )

    def _table_one(self) -> str:
        caption = (
            "One row per path. Forget score: decrease of the mean log-likelihood of label and paraphrases, in nats; "
            f"{self.study.retain_title}: 1 minus the absolute change of the retained answers' log-likelihood; math: change of "
            "accuracy. The lowest forget score of a column is marked."
        )
        details = f"<details><summary>All measures</summary>{closing_table(self.rows, self.study.retain_title).html()}</details>"
        return (
            _section("table", "What unlearning did to each path", caption, paper_table(self.rows, self.study) + details)
            if self.rows
            else ""
        )

    def _depth(self) -> str:
        if "depth" not in self.tables:
            return ""
        body = self.tables["depth"].html() + '<p class="files">in full, run by run: <a href="depth.csv">depth.csv</a></p>'
        return _section("depth", "Is forgetting deep or superficial?", DEPTH_CAPTION, body)

    def _recency(self) -> str:
        if "recency" not in self.tables:
            return ""
        return _section("recency", "Is the last learned the slowest forgotten?", RECENCY_CAPTION, self.tables["recency"].html())

    def _comparison(self) -> str:
        if not self.comparison:
            return ""
        names = self.comparison.names
        caption = (
            f"Each cell: the difference, {names[0]} minus {names[1]}, and below it the two means. ± is the half width of Welch's 95% "
            "confidence interval where both studies have several seeds; a difference whose interval leaves zero out is marked."
        )
        return _section("comparison", f"Against {names[1]}", caption, comparison_html(self.comparison))

    def _section_of(self, chart: Chart) -> str:
        panels = "".join(
            f'<div class="panel"><h3>{html.escape(panel.title)}</h3>'
            f'<div class="plot" data-chart="{chart.key}" data-panel="{index}" role="img" '
            f'aria-label="{html.escape(f"{chart.heading}, {panel.title}")}"></div></div>'
            for index, panel in enumerate(chart.panels)
        )
        grid = f' style="--columns: {chart.columns}"' if chart.columns else ""
        links = " · ".join(f'<a href="figures/{chart.key}.{kind}">{kind.upper()}</a>' for kind in ("svg", "png"))
        body = f'<p class="axis">{html.escape(chart.y_title)}{_key(chart)}</p><div class="panels"{grid}>{panels}</div>'
        body += f'<p class="files">for print: {links}</p>'
        if chart.key == "further_stages" and "further_stages" in self.tables:
            body += f'<p class="caption">{html.escape(FURTHER_CAPTION)}</p>{self.tables["further_stages"].html()}'
        if chart.key == "paths" and "growth_rates" in self.tables:
            caption = (
                "Growth rate of the distances to the retrained model and between paths: slope of the log distance against the step, per "
                "step (least squares), the measured sibling of the theorem's "
                "2 log(1 + ρ*); at a rate r every step multiplies the distance by exp(r)."
            )
            body += f'<p class="caption">{html.escape(caption)}</p>{self.tables["growth_rates"].html()}'
        return _section(chart.key, chart.heading, chart.caption, body)

    def _matched(self) -> str:
        if "matched_forgetting" not in self.tables:
            return ""
        caption = (
            "Paths forget at different speeds; here each is read off where it first reaches the largest forget score (nats) that all "
            "paths of its objective and seed reach, linear between two measurements no further apart than twice the forget score's own "
            "there. A dash: it was not measured so near (a smaller every_n_steps of its probe would)."
        )
        return _section("matched", "Compared at equal forgetting", caption, self.tables["matched_forgetting"].html())

    def _dependence(self) -> str:
        if "dependence" not in self.tables:
            return ""
        body = self.tables["dependence"].html()
        if "variants" in self.tables:
            body += f'<p class="caption">{html.escape(CHANGES_CAPTION)}</p>{self.tables["variants"].html()}'
        return _section("dependence", "How much does the path decide?", DEPENDENCE_CAPTION, body)

    def _explorer(self) -> str:
        caption = (
            "Choose two paths: the probe examples that differ most after unlearning, with their text; small curves run over the steps."
        )
        return _section(
            "explorer", "The examples on which two paths part most", caption, '<div id="choices"></div><div id="examples"></div>'
        )

    def _provenance(self) -> str:
        parts = [f"<p>{html.escape(line)}</p>" for line in (versions(self.study), *mixtures(self.study))]
        for name, title, noun in (
            ("unlearning_settings", "Settings in which unlearning runs differ", "settings"),
            ("stage_settings", "Settings in which stages differ", "settings"),
            ("runs", "Runs", "runs"),
        ):
            if name in self.tables:
                parts.append(f"<h3>{title}</h3>" + _folded(self.tables[name], noun, 12))
        return _section("runs", "What was run", totals(self.study), "".join(parts))


def _key(chart: Chart) -> str:
    """The names and colours of lines that the page's own legend, which is of paths, does not tell."""
    hues = {line.name: line.hues[0] for panel in chart.panels for line in panel.lines if not line.paths}
    return "".join(f' &ensp; <i class="dot c{hue % 8}"></i>{html.escape(name)}' for name, hue in hues.items())


def _section(key: str, heading: str, caption: str, body: str) -> str:
    return f'<section id="{key}"><h2>{html.escape(heading)}</h2><p class="caption">{html.escape(caption)}</p>{body}</section>'


def _folded(table: Table, noun: str, most: int) -> str:
    """A long table starts folded."""
    if len(table.rows) <= most:
        return table.html()
    return f"<details><summary>{len(table.rows)} {noun}</summary>{table.html()}</details>"


def _numbers(chart: Chart) -> dict[str, Any]:
    content = asdict(chart) | {"y_ranges": chart.y_ranges, "y_ticks": chart.y_ticks}
    return {key: value for key, value in content.items() if key not in ("key", "heading", "caption")}


def _finite(value: Any) -> Any:
    """The same data with numbers of five digits and null for nan, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value
