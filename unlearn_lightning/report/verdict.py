"""The summary paragraph, computed: does the study show what the paper found, how surely, and what speaks against it?"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from unlearn_lightning.report.behaviour import absent, behaviour_sentence
from unlearn_lightning.report.depth import depths
from unlearn_lightning.report.depth_tables import as_in_the_paper, depth_sentences
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import OutcomeRow
from unlearn_lightning.report.recency import Recency, recency
from unlearn_lightning.report.statistics import growth_rate
from unlearn_lightning.report.study_data import Study


@dataclass
class Verdict:
    """`headline` is one sentence; `agrees` says whether what the paper found is there (None: the data do not tell).

    What it found is the recency effect or, in a study of response families alone, which orders are forgotten deeply.
    """

    headline: str
    sentences: list[str]
    agrees: bool | None


def verdict(study: Study, rows: Sequence[OutcomeRow], distances: Distances) -> Verdict:
    """Headline and supporting sentences, every number from the data."""
    by_label = recency(study)
    headline, agrees = _headline(study, by_label)
    deep = depth_sentences(found) if (found := depths(study)) else []
    if found and not any(one.share.n for one in by_label):
        headline, agrees = deep.pop(0), as_in_the_paper(found)
    if nothing_to_forget := absent(study):
        headline, agrees = nothing_to_forget, None
    sentences = [
        *deep,
        behaviour_sentence(study),
        *_by_objective(study, by_label, recency(study, "forget_score")),
        _saturation(study, rows),
        _towards_retrained(study, rows),
        _not_local(study),
        _divergence(study, distances),
    ]
    return Verdict(headline, [sentence for sentence in sentences if sentence], agrees)


def _headline(study: Study, counted: Sequence[Recency]) -> tuple[str, bool | None]:
    hits, cells = sum(one.share.hits for one in counted), sum(one.share.n for one in counted)
    if len(study.paths) < 2:
        return "A single path: nothing to compare.", None
    if not cells:
        return "No verdict yet: there is no seed in which every path was unlearned and its label measured.", None
    last = _last(study)
    chance = len(study.last_paths) / len(study.paths)
    where = f"{hits} of {cells} comparisons (one per seed and objective)"
    if hits == cells:
        comparisons = f"all {cells} comparisons (one per seed and objective)" if cells > 1 else "the one comparison there is"
        return f"As in the paper: the path that met the forget stage last ({last}) forgot the label least, in {comparisons}.", True
    if hits / cells > 0.5:
        return f"Mostly as in the paper: the path that met the forget stage last ({last}) forgot the label least in {where}.", True
    if hits / cells > chance:
        return f"Not clear: the path that met the forget stage last ({last}) forgot the label least in only {where}.", None
    least = f"only {where}" if hits else f"none of {cells} comparisons (one per seed and objective)"
    return f"Against the paper: the path that met the forget stage last ({last}) forgot the label least in {least}.", False


def _by_objective(study: Study, by_label: Sequence[Recency], by_score: Sequence[Recency]) -> list[str]:
    counted = [one for one in by_label if one.share.n]
    if not counted:
        return []
    single = max(one.share.n for one in counted) == 1
    parts = []
    for one in counted:
        low, high = one.share.interval
        parts.append(f"{one.objective} {one.share.hits} of {one.share.n}{'' if single else f' seeds ({low:.0%} to {high:.0%})'}")
    interval = "" if single else f", with 95% Wilson intervals (chance would give {len(study.last_paths) / len(study.paths):.0%})"
    sentences = [f"By objective{interval}: {', '.join(parts)}."]
    scored = [one for one in by_score if one.share.n]
    if scored:
        hits, cells = sum(one.share.hits for one in scored), sum(one.share.n for one in scored)
        sentences.append(f"By the forget score, which counts paraphrases too, it is {hits} of {cells}.")
    if single:
        sentences.append("With a single seed this is an observation, not a test.")
    if left_out := sum(one.incomplete for one in by_label):
        some = "cell is" if left_out == 1 else "cells are"
        sentences.append(f"{left_out} further seed × objective {some} incomplete and not counted.")
    return sentences


def _saturation(study: Study, rows: Sequence[OutcomeRow]) -> str:
    """The margin is the same for all objectives before step 1: average over them."""
    margins = {}
    for path in study.paths:
        known = [row.values["margin_before"].mean for row in rows if row.path == path and row.values["margin_before"].n]
        if known:
            margins[path.index] = sum(known) / len(known)
    latest = {path.index for path in study.last_paths}
    last = [value for index, value in margins.items() if index in latest]
    others = [value for index, value in margins.items() if index not in latest]
    if not last or not others:
        return ""
    mine = max(last)
    between = (f"{min(others):.1f}" if len(others) == 1 else f"{min(others):.1f} to {max(others):.1f}").replace("-", "−")
    if mine > max(others):
        meaning = "so some of its slowness can be saturation: logits must move before the likelihood does"
    else:
        meaning = "so saturation alone does not explain how fast it forgets"
    before = f"{mine:.1f}".replace("-", "−")
    return f"Before unlearning the label margin of {_last(study)} is {before} nats, that of the other paths {between}, {meaning}."


def _not_local(study: Study) -> str:
    names = list(dict.fromkeys(run.objective for run in study.finished("unlearn") if run.info.get("local") is False))
    return f"Not local, as gradients come from retain data too: {_listed(names)}." if names else ""


def _towards_retrained(study: Study, rows: Sequence[OutcomeRow]) -> str:
    said: dict[str, list[str]] = {}  # what happened -> under which objectives
    for objective in study.objectives:
        moves: dict[bool, list[str]] = {True: [], False: []}
        for row in rows:
            before, after = row.values["distance_before"].mean, row.values["distance_after"].mean
            if row.objective == objective and not math.isnan(before + after):
                moves[after < before].append(row.path.label)
        measured = len(moves[True]) + len(moves[False])
        named = {way: "every path" if len(labels) == measured > 1 else _listed(labels) for way, labels in moves.items() if labels}
        parts = [f"{named[way]} {where}" for way, where in ((True, "closer"), (False, "further away")) if way in named]
        if parts:
            said.setdefault(" and ".join(parts), []).append(objective)
    if not said:
        return ""
    moved = "; ".join(f"{_listed(objectives)} took {what}" for what, objectives in said.items())
    return f"Relative to the model that never saw the forget set, {moved}."


def _divergence(study: Study, distances: Distances) -> str:
    parts, all_rates = [], []
    for objective in study.objectives:
        pairs = [distances.between_paths(objective, a, b) for a, b in combinations(study.paths, 2)]
        rates = [rate for curves in pairs for rate in map(growth_rate, curves) if not math.isnan(rate)]
        if rates:
            apart = sum(rate > 0 for rate in rates)
            all_rates += rates
            pace = f"{median(rates):+.3f}".replace("-", "−")
            parts.append(f"{apart} of {len(rates)} under {objective} (median growth rate {pace} per step)")
    if not parts:
        return ""
    lead = "As the theory expects" if median(all_rates) > 0 else "Against the theory's expectation"
    return f"{lead}, the pairs of paths that drift apart while they are unlearned alike are {', '.join(parts)}."


def _last(study: Study) -> str:
    return _listed([path.label for path in study.last_paths])


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
