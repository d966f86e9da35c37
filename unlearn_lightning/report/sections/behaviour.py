"""Whether models show the behaviour that they are made to forget: shares of greedy responses, from the records of `ResponseBehaviour`.

absent(study)      # "Not a comparison: before unlearning the forget behaviour is absent on p=1 (0% of the responses show it), so ..."

A model cannot forget a behaviour that it does not show, so a path without it at the start says nothing about the others.
"""

import math
from collections.abc import Callable, Iterable, Mapping

from unlearn_lightning.records.statistics import PRESENT, Curve, finite
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath
from unlearn_lightning.report.section import Section, Verdict, listed

PROBE, SHARE = "behaviour", "behaviour/share"


class Behaviour(Section):
    """Sentences alone; where a path lacks the behaviour, this comes before every other verdict."""

    place = 25
    heading = "Is the behaviour there?"

    def verdict(self) -> Verdict | None:
        lacking = absent(self.study)
        return Verdict(lacking, weight=3) if lacking else None

    def sentences(self) -> Iterable[str]:
        return [behaviour_sentence(self.study)]


def shares(study: Study, at: Callable[[Iterable[int]], int]) -> dict[TrainingPath, float]:
    """Each measured path's mean share over its unlearning runs, at the first (`min`) or the last (`max`) measured step."""
    found = {}
    for path in study.paths:
        runs = [run for objective in study.objectives for run in study.unlearned(objective, path)]
        if measured := [share for run in runs if not math.isnan(share := _share(run, at))]:
            found[path] = sum(measured) / len(measured)
    return found


def absent(study: Study) -> str:
    """One sentence where a path lacks the forget behaviour before unlearning; empty where all have it or it was not measured."""
    lacking = {path: share for path, share in shares(study, min).items() if share < PRESENT}
    if not lacking:
        return ""
    named = ", ".join(f"{path.label} ({share:.0%} of the responses show it)" for path, share in lacking.items())
    return f"Not a comparison: before unlearning the forget behaviour is absent on {named}, so there is nothing there to forget."


def behaviour_sentence(study: Study) -> str:
    """The shares before and after unlearning by path and objective, and the retrained models'; empty where nothing was measured."""
    before = shares(study, min)
    if not before:
        return ""
    parts = []
    for objective in study.objectives:
        measured = {path: [*_known(_share(run, max) for run in study.unlearned(objective, path))] for path in before}
        after = {path: sum(values) / len(values) for path, values in measured.items() if values}
        parts += [f"{objective} {_by_path(after, len(study.paths))}"] if after else []
    start = _by_path(before, len(study.paths))
    models = [study.retrained(seed, path.stages) for seed in study.seeds for path in study.paths]
    level = [*_known(_share(run, max) for run in {run.key: run for run in models if run is not None}.values())]
    retrained = f"; of the retrained model {sum(level) / len(level):.0%}" if level else ""
    return f"Greedy responses that show the forget behaviour, before unlearning: {start}{retrained}; after: {'; '.join(parts)}."


def _by_path(shares: Mapping[TrainingPath, float], paths: int) -> str:
    """The shares by path, each once: "p=1 95%, p=2 and p=3 100%", or "0% on all paths" where no path lacks it or shows another."""
    alike: dict[str, list[str]] = {}
    for path, share in shares.items():
        alike.setdefault(f"{share:.0%}", []).append(path.label)
    if len(alike) == 1 and 1 < paths == len(shares):
        return f"{next(iter(alike))} on all paths"
    return ", ".join(f"{listed(labels)} {share}" for share, labels in alike.items())


def _known(values: Iterable[float]) -> Iterable[float]:
    return (value for value in values if not math.isnan(value))


def _share(run: RunRecord, at: Callable[[Iterable[int]], int]) -> float:
    curve: Curve = finite(run.metric(PROBE, SHARE))
    return curve[at(curve)] if curve else math.nan
