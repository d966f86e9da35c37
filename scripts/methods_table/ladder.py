"""The learning rate of each objective by one rule: a ladder of rates as a study of one seed, and what is chosen of it.

write_ladder(Path("configs/studies/demo_methods.yaml"), Path("runs/demo_methods_rates.yaml"))
chosen(Path("runs/demo_methods_rates"))       # {"ga": Chosen(rate=1.5e-4, drop=5.1, retention=0.98, reached=True), ...}
"""

import re
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import yaml

from unlearn_lightning.records import read_records, read_study

RATES = (5e-5, 1.5e-4, 2.5e-4, 5e-4, 8e-4, 1.5e-3)
SEED, POSITIONS = 0, (1, 4)
SHARE, KEPT = 0.5, 0.9
"""Of the label's way to the retrained model that a rate has to take it, and of the retention where none does."""


class Chosen(NamedTuple):
    """A rate with what it did on the mean over paths: the label's drop (nats), the retention, and whether the drop was enough."""

    rate: float
    drop: float
    retention: float
    reached: bool


def write_ladder(study: Path, out: Path) -> None:
    """Writes the study of all objectives at all rates, with the two probes that the rule needs."""
    given = yaml.safe_load(study.read_text())
    objectives = given["objectives"]
    ladder: dict[str, object] = dict.fromkeys(objectives)
    for name, settings in objectives.items():
        for rate in RATES:
            one = yaml.safe_load(yaml.safe_dump(settings))
            one["model"]["init_args"]["optimizer"]["init_args"]["lr"] = rate
            ladder[f"{name}-{rate:g}"] = one | {"tags": {"objective": name, "lr": rate}}
    probes = {"divergence": None, "behaviour": None, "gsm8k": None}
    content = {
        "like": str(study.absolute()), "name": out.stem, "seeds": [SEED], "positions": [*POSITIONS], "objectives": ladder,
        "probes": probes, "stage_probes": ["forget", "retain"], "relearning": dict.fromkeys(given.get("relearning") or {}),
    }  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(yaml.safe_dump(content, sort_keys=False))


def by_rule(measured: Mapping[float, tuple[float, float]], wanted: float) -> Chosen:
    """The rule on one objective.

    Args:
        measured: rate -> the label's drop (nats) and the retention, means over paths.
        wanted: the drop that is asked for.
    """
    for rate, (drop, retention) in sorted(measured.items()):
        if drop >= wanted:
            return Chosen(rate, drop, retention, True)
    gentle = [rate for rate, (_, retention) in measured.items() if retention >= KEPT]
    rate = max(gentle) if gentle else min(measured)
    return Chosen(rate, *measured[rate], False)


def chosen(study: Path) -> dict[str, Chosen]:
    """The rule on a finished ladder, by objective."""
    runs = read_study(study)["runs"]
    (retrained,) = (run for run in runs if run["tags"].get("retrained"))
    level = _ends(study / retrained["folder"], "forget", "forget/label_log_lik")[1]
    found: dict[str, dict[float, list[tuple[float, float, float]]]] = {}
    for run in runs:
        if run["kind"] == "unlearn":
            before, after = _ends(study / run["folder"], "forget", "forget/label_log_lik")
            kept = _ends(study / run["folder"], "retain", "retain/tofu_log_lik")
            rates = found.setdefault(run["tags"]["objective"], {})
            rates.setdefault(float(run["tags"]["lr"]), []).append((before - after, 1 - abs(kept[1] - kept[0]), before - level))
    wanted = {name: SHARE * fmean(way for of in rates.values() for *_, way in of) for name, rates in found.items()}
    means = {
        name: {rate: (fmean(d for d, *_ in of), fmean(k for _, k, _ in of)) for rate, of in rates.items()} for name, rates in found.items()
    }
    return {name: by_rule(rates, wanted[name]) for name, rates in means.items()}


def with_rates(text: str, rates: Mapping[str, Chosen]) -> str:
    """A study's file with the rate of each objective set, all else as it was."""
    name, lines = "", []
    for line in text.splitlines(keepends=True):
        if entry := re.match(r"  (\w+):", line):
            name = entry[1]
        lines.append(re.sub(r"\blr: [^,}]+", f"lr: {rates[name].rate:.1e}", line) if name in rates else line)
    return "".join(lines)


def _ends(folder: Path, probe: str, metric: str) -> tuple[float, float]:
    found = read_records(folder, probe)
    return found[min(found)]["metrics"][metric], found[max(found)]["metrics"][metric]
