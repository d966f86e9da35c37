"""`index.html`: one file with its data, styles and plotly.js inside, so that it opens anywhere and asks the network for nothing."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any

from unlearn_lightning.records.study_data import Study
from unlearn_lightning.report.blocks import Explorer
from unlearn_lightning.report.chart import Chart
from unlearn_lightning.report.section import Section, Verdict

FINAL = 1
"""The version of a page that follows nothing."""


def page(study: Study, verdict: Verdict, sections: Sequence[Section], problems: Sequence[str], version: int = FINAL) -> str:
    """The page as one HTML text that needs no other file: styles, script and data are part of it.

    Args:
        study: what the report is of.
        verdict: whose headline stands at the top.
        sections: in reading order; each shows its blocks with their templates in assets/.
        problems: what is missing.
        version: of a page that follows a running study.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("unlearn_lightning.report", "assets"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    package = files("unlearn_lightning.report")
    css, js = (package.joinpath("assets", name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    plotly = package.joinpath("vendor", "plotly-basic.min.js").read_text(encoding="utf-8")
    charts = [chart for section in sections for chart in section.charts]
    return environment.get_template("page.html").render(
        study=study, verdict=verdict, sections=sections, problems=problems, scope=_scope(study), live=version != FINAL,
        sentences=[sentence for section in sections for sentence in section.said(verdict)],
        legend=any(line.paths for chart in charts for panel in chart.panels for line in panel.lines),
        # These four are our own files and JSON that cannot end the element it stands in.
        css=Markup(css), js=Markup(js), plotly=Markup(plotly.replace("</script", "<\\/script")),
        data=Markup(_json(_data(study, sections, charts, version))),
    )  # fmt: skip


def _data(study: Study, sections: Sequence[Section], charts: Sequence[Chart], version: int) -> dict[str, Any]:
    """What page.js draws from."""
    explorers = [block.data for section in sections for block in section.shown if isinstance(block, Explorer)]
    return {
        "paths": [asdict(path) for path in study.paths],
        "charts": {chart.key: _numbers(chart) for chart in charts},
        "explorer": explorers[0] if explorers else {"texts": {}, "views": {}},
        "version": version,
        "live": version != FINAL,
    }


def _scope(study: Study) -> str:
    counts = [(len(study.paths), "path"), (len(study.objectives), "objective"), (len(study.seeds), "seed")]
    counted = ", ".join(f"{count} {noun}{'' if count == 1 else 's'}" for count, noun in counts if count)
    interval = " Bands and ± are 95% confidence intervals over seeds (Student's t)." if len(study.seeds) > 1 else ""
    forget = f"Forget stage: {study.forget}. " if study.forget and study.paths else ""
    return f"{forget}{counted}.{interval}"


def _numbers(chart: Chart) -> dict[str, Any]:
    content = asdict(chart) | {"y_ranges": chart.y_ranges, "y_ticks": chart.y_ticks}
    return {key: value for key, value in content.items() if key not in ("key", "heading", "caption")}


def _json(value: Any) -> str:
    return json.dumps(_finite(value), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _finite(value: Any) -> Any:
    """The same data with numbers of five digits and null for nan, which JSON does not know."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.5g}") if math.isfinite(value) else None
    return value


def live_version(study: Study) -> int:
    """Versions of a running study's page are told apart by how many runs are finished, for only these are in it."""
    return 2 + len(study.runs) - len(study.unfinished)


def version_picture(version: int) -> str:
    """Tells open pages which version is the newest: an empty picture of this width beside the page.

    A page that is a plain file and asks no network can read nothing else.
    """
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="{version}" height="1"/>\n'
