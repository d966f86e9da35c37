"""`unlearn study CONFIG --plan`: what a study would do and take, without training.

    print_plan(study, runs, Path("runs/demo"), console, throughput=12000)

Prints the tree (shared prefixes once), each run's examples, tokens, steps, FLOPs, bytes and hours, the totals, and each run's
`unlearn fit` command (plan_commands.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.tree import Tree

from unlearn_lightning.cli.terminal import Column, TerminalTable
from unlearn_lightning.records import is_finished, read_run
from unlearn_lightning.runs.run_key import UNREAD
from unlearn_lightning.study.estimate import Estimator, RunCost
from unlearn_lightning.study.plan_commands import COMMANDS, write_commands
from unlearn_lightning.study.relearning import RELEARN
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.unread import quick_hub

# Share of a device's peak that training reaches, and the peak that is assumed when nothing is given: an NVIDIA H100 SXM, dense.
SHARE_OF_PEAK = 0.4
H100_FLOPS = {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12}


MOST_SHOWN, SHOWN = 200, 100
"""A tree of more runs than these is shown by its first runs; the file of commands has all."""


@dataclass(frozen=True)
class Speed:
    """How fast a device trains: by tokens or by FLOPs per second; `basis` says where the number comes from."""

    basis: str
    tokens_per_second: float = math.inf
    flops_per_second: float = math.inf

    def hours(self, estimate: RunCost) -> float | None:
        """Hours of one device; null where the FLOPs are needed and not known."""
        if estimate.flops is None and self.tokens_per_second == math.inf:
            return None
        return (estimate.tokens / self.tokens_per_second + (estimate.flops or 0) / self.flops_per_second) / 3600


def print_plan(
    study: StudyConfig,
    runs: Sequence[Run],
    folder: Path,
    console: Console,
    throughput: float | None = None,
    peak_flops: float | None = None,
    planned: Sequence[Run] | None = None,
) -> dict[str, RunCost]:
    """Prints the plan and writes the runs' configurations to `folder`/plan.

    Args:
        study: the study.
        runs: its tree, parents before children.
        folder: the study folder.
        console: where to print.
        throughput: tokens per second of one device; null for what this study's finished runs reached.
        peak_flops: FLOPs per second of one device, of which 40% is counted on; null for an H100's where nothing was measured.
        planned: of the tree, the runs that are to be executed, with all that they start from; null for all.

    Returns:
        Run name -> what it takes.
    """
    estimator, tree = Estimator(), runs
    speed = _speed(tree, throughput, peak_flops)
    runs = tree if planned is None else planned
    with console.status("estimating"), quick_hub():
        estimates = {run.name: estimator.estimate(run) for run in runs}
    states = {run.name: _state(run) for run in runs}
    shown = runs if len(runs) <= MOST_SHOWN else runs[:SHOWN]
    console.print(_tree(study, shown, estimates, states))
    console.print(_table(shown, estimates, speed))
    if shown is not runs:
        console.print(
            f"  The first {len(shown)} of {len(runs):,} runs are shown. All their commands, in order: {folder / 'plan' / COMMANDS}",
            soft_wrap=True,
        )
    for line in [*_summary(study, tree, runs, estimates, speed, states), *(f"  {note}" for note in estimator.notes)]:
        console.print(line, markup=False, highlight=False)
    write_commands(study, runs, folder, console, len(shown))
    return estimates


def stage_runs(study: StudyConfig, runs: Sequence[Run]) -> tuple[int, int]:
    """How many stage runs the tree has, and how many it would have were nothing shared; without base trainings."""
    alone = len(study.seeds) * (sum(len(path.stages) for path in study.all_paths()) + sum(map(len, study.retrained_paths())))
    return sum(run.kind == "stage" and bool(run.tags["path"]) for run in runs), alone


def _state(run: Run) -> str:
    return "unread" if run.key.startswith(UNREAD) else "finished" if is_finished(run.folder) else "new"


def _tree(study: StudyConfig, runs: Sequence[Run], estimates: dict[str, RunCost], states: dict[str, str]) -> Tree:
    root = Tree(f"[b]{study.name}[/]")
    branches: dict[str, Tree] = {}
    for run in runs:
        estimate, style = estimates[run.name], "green" if states[run.name] == "finished" else ""
        mark = " (retrained model)" if run.tags.get("retrained") else ""
        text = f"{run.name}{mark}: {run.kind}, {estimate.steps} steps, {states[run.name]}"
        above = branches[run.parents[0].key] if run.parents else root
        branches[run.key] = above.add(text, style=style)
    return root


COLUMNS = (
    Column("run", 0), Column("examples", 1), Column("tokens/\nepoch", 3), Column("tokens", 0), Column("steps", 0), Column("FLOPs", 2),
    Column("disk", 2), Column("GPU\nhours", 0),
)  # fmt: skip


def _table(runs: Sequence[Run], estimates: dict[str, RunCost], speed: Speed) -> TerminalTable:
    rows = []
    for run in runs:
        e = estimates[run.name]
        epoch = _quantity(e.epoch_tokens, approximate=e.estimated)
        disk = _quantity(e.result_bytes, "B")
        flops = "?" if e.flops is None else f"{e.flops:.2e}"
        rows.append([run.name, str(e.examples), epoch, _tokens(e), str(e.steps), flops, disk, _hours(speed, e)])
    return TerminalTable(COLUMNS, rows)


def _counted(study: StudyConfig, tree: Sequence[Run], runs: Sequence[Run]) -> str:
    """How many runs there are of each kind: of the whole tree, and of a part of it."""
    (stages, alone), unlearning = stage_runs(study, runs), sum(run.kind == "unlearn" for run in runs)
    bases = sum(run.kind == "stage" and not run.tags["path"] for run in runs)
    more = {"runs of requests": "request", "relearning runs": RELEARN}
    others = "".join(f", {count} {what}" for what, kind in more.items() if (count := sum(run.kind == kind for run in runs)))
    base = f", {bases} base training{'s' if bases > 1 else ''}" if bases else ""
    instead = f" instead of {alone} ({alone - stages} shared)" if runs is tree else ""
    part = "" if runs is tree else f" (of {len(tree):,} runs of the study)"
    return f"{stages} stage runs{instead}, {unlearning} unlearning runs{others}{base}{part}"


def _summary(
    study: StudyConfig, tree: Sequence[Run], runs: Sequence[Run], estimates: dict[str, RunCost], speed: Speed, states: dict[str, str]
) -> list[str]:
    todo = [estimates[run.name] for run in runs if states[run.name] != "finished"]
    lines = ["", f"{_counted(study, tree, runs)}; {len(runs) - len(todo)} are finished."]
    for name, part in {"All": list(estimates.values()), "Still to do": todo}.items():
        if name == "All" or 0 < len(todo) < len(runs):
            flops, hours = _sum(e.flops for e in part), _sum(speed.hours(e) for e in part)
            tokens = _quantity(sum(e.tokens for e in part), approximate=any(e.estimated for e in part))
            said, spent = ("?" if value is None else form.format(value) for value, form in ((flops, "{:.2e}"), (hours, "{:.3g}")))
            lines.append(f"{name}: {tokens} tokens, {said} FLOPs, {spent} GPU-hours.")
    result, whole = _sum(e.result_bytes for e in estimates.values()), _sum(e.model_bytes for e in estimates.values())
    if result == whole:
        lines.append(f"Disk: {_quantity(result, 'B')} for the whole models, as all weights are trained.")
    else:
        lines.append(f"Disk: {_quantity(result, 'B')} for adapters, instead of {_quantity(whole, 'B')} for whole models.")
    lines.append(f"GPU-hours: {speed.basis}. Probes, which measure and generate, are left out of FLOPs and hours. ~ marks estimates.")
    return lines


def _speed(runs: Sequence[Run], throughput: float | None, peak_flops: float | None) -> Speed:
    for name, value in {"throughput": throughput, "peak_flops": peak_flops}.items():
        if value is not None and value <= 0:
            raise ValueError(f"--{name} must be above 0, got {value}.")
    if throughput is not None:
        return Speed(f"at the given {throughput:g} tokens/s", tokens_per_second=throughput)
    share = f"{SHARE_OF_PEAK:.0%} of"
    if peak_flops is not None:
        return Speed(f"at {share} the given {peak_flops:.3g} FLOP/s", flops_per_second=SHARE_OF_PEAK * peak_flops)
    facts = [fact for run in runs if is_finished(run.folder) and (fact := read_run(run.folder)).get("tokens") and fact.get("seconds")]
    if tokens := sum(fact["tokens"] for fact in facts):
        measured = tokens / sum(fact["seconds"] for fact in facts)
        return Speed(f"at {measured:.4g} tokens/s, measured in {len(facts)} finished runs with their probes", tokens_per_second=measured)
    dtype = runs[0].config["model"]["init_args"]["backbone"]["dtype"]
    peak = H100_FLOPS[dtype if str(runs[0].config["trainer"]["precision"]) in ("None", "32", "32-true") else "bfloat16"]
    basis = f"assumed, at {share} an H100's {peak:.3g} FLOP/s; give --throughput (tokens/s) or --peak_flops"
    return Speed(basis, flops_per_second=SHARE_OF_PEAK * peak)


def _sum(values: object) -> float | None:
    listed = list(values)  # type: ignore[call-overload]
    return None if None in listed else sum(listed)


def _tokens(estimate: RunCost) -> str:
    return _quantity(estimate.tokens, approximate=estimate.estimated)


def _hours(speed: Speed, estimate: RunCost) -> str:
    hours = speed.hours(estimate)
    return "?" if hours is None else f"{hours:.2g}"


def _quantity(value: float | None, unit: str = "", approximate: bool = False) -> str:
    """12.3M, 45.1 MB; powers of 1000."""
    if value is None:
        return "?"
    power = min(4, int(math.log10(value) // 3)) if value >= 1 else 0
    number = f"{value / 1000**power:.4g}"
    return ("~" if approximate else "") + number + (" " if unit else "") + ("", "k", "M", "G", "T")[power] + unit
