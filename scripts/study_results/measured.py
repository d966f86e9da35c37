"""Reads a study's folders by the format of docs/runs.md: one row per seed, path, objective and quantity, before and after unlearning."""

import csv
import json
import re
import subprocess
from collections.abc import Iterable, Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from unlearn_lightning.inference.divergence import squared_distance
from unlearn_lightning.records import is_finished, read_records, read_run, read_study


class Row(NamedTuple):
    """One number of one seed, before and after unlearning; nan where there is none."""

    seed: int
    path: str
    objective: str
    quantity: str
    before: float
    after: float


QUANTITIES = {
    "refused": [("behaviour", "behaviour/share")],
    "label": [("forget", "forget/label_log_lik")],
    "first token": [("forget", "forget/label_first_log_lik")],
    "margin": [("forget", "forget/label_margin")],
    "phrases": [("forget", "forget/phrases_log_lik")],
    "tofu": [("retain", "retain/tofu_log_lik")],
    "solutions": [("solutions", "solutions/math_log_lik")],
    "sums": [("sums", "sums/accuracy")],
    "sums refused": [("refused_sums", "refused_sums/share")],
    "math": [("gsm8k", "gsm8k/accuracy"), ("problems", "problems/accuracy")],
}
"""Each quantity's probe and metric; of several, what a study has."""
NAN = float("nan")
ANSWERS = "answers: "
"""What the quantities begin with that were counted in answers before unlearning, by tests/acceptance.py."""
RETRAINED = "retrained"
"""The path of a retrained model's numbers, or what it begins with where each path has its own."""


def seeds_said(rows: Iterable[Row]) -> str:
    """`seed 1` or `seeds 1, 2`."""
    seeds = sorted({row.seed for row in rows})
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def measured(study: Path) -> tuple[dict[str, str], list[Row]]:
    """What made the numbers (commit, processor, versions), and all rows."""
    runs = _finished(study)
    unlearned = [run for run in runs if run["kind"] == "unlearn"]
    retrained = _retrained(study, runs)
    rows = []
    for run in unlearned:
        seed, path = run["tags"]["seed"], f"p={run['tags']['p']}"
        model = retrained.get((seed, f"{RETRAINED} of {path}")) or retrained.get((seed, RETRAINED))
        rows += _of_run(study / run["folder"], run["tags"], model)
    rows += [row for (seed, name), folder in retrained.items() for row in _levels(folder, seed, name)]
    return made_with(study), [*rows, *_pairs(study, unlearned), *answered(study)]


def _finished(study: Path) -> list[dict[str, Any]]:
    return [run for run in read_study(study)["runs"] if is_finished(study / run["folder"])]


def _retrained(study: Path, runs: list[dict[str, Any]]) -> dict[tuple[int, str], Path]:
    """Each seed's retrained models: one for all paths, or `retrained of p=1` and so on where a stage takes the forget stage's place."""
    forget, found = read_study(study)["forget"], {}
    for run in runs:
        if run["tags"].get("retrained"):
            of = run["tags"].get("retrained_of")
            name = f"{RETRAINED} of p={of.index(forget) + 1}" if of else RETRAINED
            place = run["tags"]["seed"], name
            if place in found:
                raise ValueError(f"{study}: seed {place[0]} has two models {name!r}, and no table tells them apart.")
            found[place] = study / run["folder"]
    return found


def _of_run(folder: Path, tags: dict[str, Any], retrained: Path | None) -> Iterator[Row]:
    where = tags["seed"], f"p={tags['p']}", tags["objective"]
    for quantity, found in recorded(folder):
        yield Row(*where, quantity, found[min(found)], found[max(found)])
    weights = [row["train/gradient_weight"] for row in _metrics(folder) if row.get("train/gradient_weight")]
    if weights:
        yield Row(*where, "gradient weight", float(weights[0]), float(weights[-1]))
    if retrained is not None and (vectors := prediction_vectors(folder)):
        target = [*prediction_vectors(retrained).values()][-1]
        curve = {step: squared_distance(one, target) for step, one in vectors.items()}
        yield from _curve((*where, "to retrained"), curve)


def _levels(folder: Path, seed: int, name: str) -> Iterator[Row]:
    for quantity, found in recorded(folder):
        yield Row(seed, name, "", quantity, found[max(found)], NAN)


def recorded(folder: Path) -> Iterator[tuple[str, dict[int, float]]]:
    """What a run's probes measured: a key of `QUANTITIES`, and its values by step."""
    for quantity, places in QUANTITIES.items():
        for probe, key in places:
            if found := read_records(folder, probe):
                yield quantity, {step: record["metrics"].get(key, NAN) for step, record in found.items()}
    if sums := read_records(folder, "sums"):
        yield "sums named", {step: fmean(map(names_the_answer, record["examples"])) for step, record in sums.items()}


def names_the_answer(example: dict[str, Any]) -> bool:
    """Whether the right number stands anywhere in the answer to a sum; it equals neither of the two that the question has."""
    return example["answer"] in re.findall(r"\d+", example["attempts"][0])


def _pairs(study: Path, runs: list[dict[str, Any]]) -> Iterator[Row]:
    for one, other in combinations(runs, 2):
        mine, theirs = one["tags"], other["tags"]
        if (mine["seed"], mine["objective"]) != (theirs["seed"], theirs["objective"]):
            continue
        first, second = prediction_vectors(study / one["folder"]), prediction_vectors(study / other["folder"])
        curve = {step: squared_distance(first[step], second[step]) for step in first.keys() & second.keys()}
        names = sorted([f"p={mine['p']}", f"p={theirs['p']}"])
        yield from _curve((mine["seed"], " and ".join(names), mine["objective"], "between paths"), curve)


def _curve(where: tuple[int, str, str, str], curve: dict[int, float]) -> Iterator[Row]:
    yield Row(*where, curve[min(curve)], curve[max(curve)])


def answered(study: Path) -> Iterator[Row]:
    """Shares in plain transformers, as tests/acceptance.py found them: "seed1 p=4", or "seed1 safety > inst" right after a stage."""
    file = study / "acceptance.json"
    for name, shares in (json.loads(file.read_text()) if file.is_file() else {}).items():
        seed, _, path = name.partition(" ")
        yield from (Row(int(seed.removeprefix("seed")), path, "", ANSWERS + what, share, NAN) for what, share in shares.items())


def prediction_vectors(folder: Path) -> dict[int, dict[str, list[float]]]:
    """A run's predictions by step and example: the log-likelihoods of the response's tokens, (T,) nats."""
    found = read_records(folder, "divergence")
    return {step: {one["id"]: one["token_log_lik"] for one in record["examples"]} for step, record in found.items()}


def _metrics(folder: Path) -> list[dict[str, str]]:
    # A run with `trainer.logger: false` has no such file.
    if not (folder / "metrics.csv").is_file():
        return []
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def commit() -> str:
    """The short name of the commit at which numbers are written."""
    said = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True, cwd=Path(__file__).parent)
    return said.stdout.strip()


def made_with(study: Path) -> dict[str, str]:
    """What made a study's numbers: commit, processor, versions, steps of unlearning, finished runs and their time."""
    planned, runs = len(read_study(study)["runs"]), _finished(study)
    infos = [read_run(study / run["folder"]) for run in runs]
    versions = {name: version for name, version in infos[0].get("versions", {}).items() if name in ("python", "torch", "transformers")}
    steps = {info["steps"] for run, info in zip(runs, infos, strict=True) if run["kind"] == "unlearn"}
    seconds = sum(info.get("seconds") or 0 for info in infos)
    of = "" if len(runs) == planned else f" of {planned}"
    return {
        "commit": commit(),
        "processor": " and ".join(sorted({str(info.get("computed_with", {}).get("processor", "an unknown processor")) for info in infos})),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "steps": " or ".join(map(str, sorted(steps))),
        "runs": f"{len(runs)}{of} runs, {seconds:.0f} s of training and measuring, added over them",
    }
