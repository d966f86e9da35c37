"""The probe examples that part most between every two paths, with their text: data for the page's explorer.

Three views: what the model predicts on the divergence probe, how likely the label is on the forget probe, and which math
problems one path solves and another does not. Values are means over seeds at the last step that both paths measured.
"""

import math
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Any

from unlearn_lightning.inference.divergence import squared_distance
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath
from unlearn_lightning.report.blocks import Block, Explorer
from unlearn_lightning.report.section import Material, Section

MOST_PATHS = 16
"""More paths than these are not compared pair by pair."""

MOST_TEXT = 600
"""Characters of a prompt or response that the page keeps."""

Curves = dict[str, dict[int, float]]
"""Example id -> step -> value."""


class PairExplorer(Section):
    """The reader chooses two paths, an objective and a view."""

    place = 80
    heading = "The examples on which two paths part most"
    caption = "Choose two paths: the probe examples that differ most after unlearning, with their text; small curves run over the steps."

    def __init__(self, material: Material):
        super().__init__(material)
        if len(self.study.paths) > MOST_PATHS:
            self.caption += f" The first {MOST_PATHS} of {len(self.study.paths)} paths are compared."

    def blocks(self) -> Iterable[Block]:
        return [Explorer(explorer(self.study))]


def explorer(study: Study) -> dict[str, Any]:
    """JSON-able: `texts` by example id, and per view, objective and pair of paths the examples that part most, greatest first."""
    pairs = list(combinations(study.paths[:MOST_PATHS], 2))
    keep = max(2, min(8, 600 // max(1, len(pairs) * len(study.objectives))))
    texts: dict[str, list[str]] = {}
    views: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = {"predictions": {}, "label": {}, "math": {}}
    for objective in study.objectives:
        for first, second in pairs:
            candidates = {
                "predictions": _by_prediction(study, objective, first, second),
                "label": _by_label(study, objective, first, second),
                "math": _by_problem(study, objective, first, second),
            }
            for view, found in candidates.items():
                top = sorted(found, key=lambda entry: (-entry["gap"], entry["id"]))[:keep]
                if top:
                    views[view].setdefault(objective, {})[f"{first.index}-{second.index}"] = top
    wanted = {entry["id"] for view in views.values() for pairs_of in view.values() for top in pairs_of.values() for entry in top}
    for run in study.finished("unlearn"):
        for probe in ("divergence", "forget", "gsm8k"):
            for example in _last_examples(run, probe):
                if example["id"] in wanted:
                    known = texts.setdefault(example["id"], ["", ""])
                    known[0] = known[0] or _cut(example.get("text", ""))
                    known[1] = known[1] or _cut(str(example.get("response", example.get("answer", ""))))
    return {"texts": texts, "views": {view: by for view, by in views.items() if by}}


def _by_prediction(study: Study, objective: str, first: TrainingPath, second: TrainingPath) -> Iterator[dict[str, Any]]:
    others = {run.seed: run for run in study.unlearned(objective, second)}
    curves: list[Curves] = []
    for run in study.unlearned(objective, first):
        if other := others.get(run.seed):
            steps = sorted(run.records("divergence").keys() & other.records("divergence").keys())
            curve: Curves = {}
            for step in steps:
                mine, theirs = run.vectors(step), other.vectors(step)
                for name in mine.keys() & theirs.keys():
                    if len(mine[name]) == len(theirs[name]):
                        distance = squared_distance({name: mine[name]}, {name: theirs[name]})
                        if math.isfinite(distance):
                            curve.setdefault(name, {})[step] = distance
            curves.append(curve)
    for name, by_step in _mean(curves).items():
        values = [round(value, 3) for value in by_step.values()]
        yield {"id": name, "gap": values[-1], "steps": list(by_step), "curves": [values]}


def _by_label(study: Study, objective: str, first: TrainingPath, second: TrainingPath) -> Iterator[dict[str, Any]]:
    mine, theirs = (_mean(map(_label_curves, study.unlearned(objective, path))) for path in (first, second))
    for name in mine.keys() & theirs.keys():
        if steps := sorted(mine[name].keys() & theirs[name].keys()):
            curves = [[round(of[name][step], 3) for step in steps] for of in (mine, theirs)]
            yield {"id": name, "gap": abs(curves[0][-1] - curves[1][-1]), "steps": steps, "curves": curves}


def _by_problem(study: Study, objective: str, first: TrainingPath, second: TrainingPath) -> Iterator[dict[str, Any]]:
    mine, theirs = (_solved(study.unlearned(objective, path)) for path in (first, second))
    for name in mine.keys() & theirs.keys():
        gap = abs(mine[name][0] - theirs[name][0])
        if gap > 0:
            yield {"id": name, "gap": gap, "shares": [mine[name][0], theirs[name][0]], "attempts": [mine[name][1], theirs[name][1]]}


def _label_curves(run: RunRecord) -> Curves:
    curves: Curves = {}
    for step, record in run.records("forget").items():
        for example in record.get("examples", []):
            if math.isfinite(example.get("label_log_lik", math.nan)):
                curves.setdefault(example["id"], {})[step] = example["label_log_lik"]
    return curves


def _solved(runs: Iterable[RunRecord]) -> dict[str, tuple[float, str]]:
    """Problem id -> share of correct attempts at the last step over all seeds, and the first seed's first attempt."""
    outcomes: dict[str, list[bool]] = {}
    attempts: dict[str, str] = {}
    for run in runs:
        for example in _last_examples(run, "gsm8k"):
            outcomes.setdefault(example["id"], []).extend(example.get("correct", []))
            attempts.setdefault(example["id"], _cut(next(iter(example.get("attempts", [])), "")))
    return {name: (sum(correct) / len(correct), attempts[name]) for name, correct in outcomes.items() if correct}


def _last_examples(run: RunRecord, probe: str) -> list[dict[str, Any]]:
    records = run.records(probe)
    return records[max(records)].get("examples", []) if records else []


def _mean(curves: Iterable[Curves]) -> Curves:
    """Mean over seeds of each example's curve, step by step."""
    collected: dict[str, dict[int, list[float]]] = {}
    for curve in curves:
        for name, by_step in curve.items():
            for step, value in by_step.items():
                collected.setdefault(name, {}).setdefault(step, []).append(value)
    return {name: {step: sum(values) / len(values) for step, values in sorted(steps.items())} for name, steps in collected.items()}


def _cut(text: str) -> str:
    return text if len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
