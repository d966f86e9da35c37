"""Figures that set variants of an objective side by side, such as the paper's figures 6 (learning rates) and 8 (schedules).

A run's tags beyond those of docs/runs.md name a variant: `{"lr": 5e-05}` makes NPO the variant `NPO · lr=5e-05`.
"""

from collections.abc import Callable

from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.records.texts import size_of
from unlearn_lightning.report.chart import Chart, Line, Panel

TAG_TITLES = {"lr": "learning rate"}

Grid = dict[str, dict[str, str]]
"""Family (the objective with its other tags) -> value of the tag, "" for none -> the variant's name."""


def variant_charts(study: Study, line: Callable[[str, TrainingPath], Line]) -> list[Chart]:
    """One figure per extra tag: a row of panels per objective, a column per value of the tag.

    Args:
        study: the study; without extra tags there are no such figures.
        line: the label log-likelihood of a variant on a path.
    """
    charts = []
    for tag in extra_tags(study):
        grid, values = variants(study, tag)
        panels = [
            Panel(names.get(value, "not run"), [one for path in study.paths if value in names and (one := line(names[value], path)).x])
            for names in grid.values()
            for value in values
        ]
        if not any(panel.lines for panel in panels):
            continue
        title = TAG_TITLES.get(tag, tag)
        heading, y_title = f"Forgetting the label, by {title}", "label log-likelihood (nats/token)"
        caption = (
            f"Log-likelihood of the unlearned label per token, in nats: a row for each objective, a column for each {title}. The panels "
            "of a row have one scale, so a line that lies lower has forgotten more."
        )
        charts.append(Chart(f"label_by_{tag}", heading, caption, "unlearning step", y_title, panels, columns=len(values)))
    return charts


def extra_tags(study: Study) -> list[str]:
    """The tags that name variants, in the order in which the study's runs have them."""
    return list(dict.fromkeys(tag for run in study.runs if run.kind == "unlearn" for tag in run.extra_tags))


def variants(study: Study, tag: str) -> tuple[Grid, list[str]]:
    """The objectives that were run with more than one value of the tag, and those values: none first, numbers by size, then words."""
    grid: Grid = {}
    for run in study.runs:
        if run.kind == "unlearn":
            grid.setdefault(run.name_without(tag), {})[run.extra_tags.get(tag, "")] = run.objective
    grid = {family: names for family, names in grid.items() if len(names) > 1}
    return grid, sorted({value for names in grid.values() for value in names}, key=size_of)
