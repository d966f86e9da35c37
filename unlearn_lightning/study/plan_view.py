"""`unlearn study CONFIG --plan`: what a study would do and take, without training.

    print_plan(study, runs, Path("runs/demo"), console, throughput=12000)

Prints the tree (shared prefixes once), each run's examples, tokens, steps, FLOPs, bytes and hours, the totals, and each run's
`unlearn fit` command; the configurations of these commands are written to the study folder's `plan/`.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.tree import Tree

from unlearn_lightning.cli.terminal import Column, TerminalTable
from unlearn_lightning.records import is_finished, read_run, write_text
from unlearn_lightning.runs.run_key import UNREAD
from unlearn_lightning.study.estimate import Estimator, RunCost
from unlearn_lightning.study.relearning import RELEARN
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.run_spec import asks_retrained, with_comparisons
from unlearn_lightning.study.study_config import Settings, StudyConfig, merged
from unlearn_lightning.study.unread import quick_hub

# Share of a device's peak that training reaches, and the peak that is assumed when nothing is given: an NVIDIA H100 SXM, dense.
SHARE_OF_PEAK = 0.4
H100_FLOPS = {"float32": 67e12, "bfloat16": 989e12, "float16": 989e12}


MOST_SHOWN, SHOWN = 200, 100
"""A tree of more runs than these is shown by its first runs; the file of commands has all."""
COMMANDS = "commands.sh"


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
) -> dict[str, RunCost]:
    """Prints the plan and writes the runs' configurations to `folder`/plan.

    Args:
        study: the study.
        runs: its tree, parents before children.
        folder: the study folder.
        console: where to print.
        throughput: tokens per second of one device; null for what this study's finished runs reached.
        peak_flops: FLOPs per second of one device, of which 40% is counted on; null for an H100's where nothing was measured.

    Returns:
        Run name -> what it takes.
    """
    estimator = Estimator()
    with console.status("estimating"), quick_hub():
        estimates = {run.name: estimator.estimate(run) for run in runs}
    speed = _speed(runs, throughput, peak_flops)
    states = {run.name: _state(run) for run in runs}
    shown = runs if len(runs) <= MOST_SHOWN else runs[:SHOWN]
    console.print(_tree(study, shown, estimates, states))
    console.print(_table(shown, estimates, speed))
    if shown is not runs:
        console.print(
            f"  The first {len(shown)} of {len(runs):,} runs are shown. All their commands, in order: {folder / 'plan' / COMMANDS}",
            soft_wrap=True,
        )
    for line in [*_summary(study, runs, estimates, speed, states), *(f"  {note}" for note in estimator.notes)]:
        console.print(line, markup=False, highlight=False)
    _commands(study, runs, folder, console, len(shown))
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


def _summary(study: StudyConfig, runs: Sequence[Run], estimates: dict[str, RunCost], speed: Speed, states: dict[str, str]) -> list[str]:
    stages, alone = stage_runs(study, runs)
    bases = sum(run.kind == "stage" and not run.tags["path"] for run in runs)
    unlearning = sum(run.kind == "unlearn" for run in runs)
    todo = [estimates[run.name] for run in runs if states[run.name] != "finished"]
    more = {"runs of requests": "request", "relearning runs": RELEARN}
    others = "".join(f", {count} {what}" for what, kind in more.items() if (count := sum(run.kind == kind for run in runs)))
    base = f", {bases} base training{'s' if bases > 1 else ''}" if bases else ""
    lines = [
        "",
        f"{stages} stage runs instead of {alone} ({alone - stages} shared), {unlearning} unlearning runs{others}{base}; "
        f"{len(runs) - len(todo)} are finished.",
    ]
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


def _commands(study: StudyConfig, runs: Sequence[Run], folder: Path, console: Console, shown: int) -> None:
    unread = {run for run in runs if run.key.startswith(UNREAD)}
    plan, sections = folder / "plan", Sections()
    plan.mkdir(parents=True, exist_ok=True)
    written = {path.name for path in plan.iterdir()}
    threads = f"OMP_NUM_THREADS={study.threads} " if study.threads else ""
    console.print("\nThe runs one by one, in this order:")
    commands = []
    for run in runs:
        path = plan / f"{run.name.replace('/', '-')}.yaml"
        command = f"{threads}unlearn fit -c {shlex.quote(str(path))}"
        commands.append(command)
        if len(commands) <= shown:
            console.print(command, markup=False, highlight=False, soft_wrap=True)
        if run not in unread:
            head = f"# {run.name} of the study {study.name}\n#   {command}\n"
            _put(path, head + sections.text(planned_config(run)), path.name in written)
        elif path.name in written:
            # A configuration of an earlier plan would start another run than the one that is shown.
            path.unlink()
    if unread:
        (plan / COMMANDS).unlink(missing_ok=True)
    else:
        write_text(plan / COMMANDS, "".join(f"{command}\n" for command in ["#!/bin/sh", "set -e", *commands]))
    if len(runs) > shown:
        rest = f" in {plan / COMMANDS}" if not unread else ""
        console.print(f"... and {len(runs) - shown:,} more{rest}", markup=False, highlight=False, soft_wrap=True)
    if unread:
        console.print(
            f"{len(unread)} of these configurations are not written: the runs' keys depend on data or models that cannot be read now. "
            "Plan again with the Hub in reach (or name another --source); runs that are finished are recognised then, too.",
            markup=False, highlight=False, style="yellow",
        )  # fmt: skip


def _put(path: Path, text: str, is_there: bool) -> None:
    """Writes a file without forcing it to the disk, as the next plan would write it again; one that says the same stays."""
    content = text.encode()
    if not (is_there and path.stat().st_size == len(content) and path.read_bytes() == content):
        path.write_bytes(content)


class Sections:
    """Writes configurations as YAML; a section that many of them have is put into words once."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def text(self, config: Settings) -> str:
        """The configuration as `yaml.safe_dump` writes it, without anchors."""
        return "".join(self._section({name: value}) for name, value in config.items())

    def _section(self, section: Settings) -> str:
        key = json.dumps(section)
        if key not in self._known:
            self._known[key] = yaml.dump(section, Dumper=_Plain, sort_keys=False)
        return self._known[key]


class _Plain(getattr(yaml, "CSafeDumper", yaml.SafeDumper)):  # type: ignore[misc]
    """Writes each value out, also where several settings share one object."""

    def ignore_aliases(self, data: Any) -> bool:
        """Says that no value is named and referred to."""
        return True


def planned_config(run: Run) -> Settings:
    """The run's whole configuration. It is compared with the retrained model, which comes before it in the plan."""
    config = with_comparisons(run.config, {name: other.folder for name, other in run.compare.items()})
    retrained = run.compare.get("retrained")
    if not retrained:
        return config
    named = {"init_args": {"retrained": str(retrained.folder)}}
    # The base, which is the retrained model of the forget stage alone, is not probed.
    recorded = any(map(_is_divergence, retrained.config["trainer"]["callbacks"] or []))
    callbacks = [
        merged(probe, named) if (recorded and _is_divergence(probe)) or asks_retrained(probe) else probe
        for probe in config["trainer"]["callbacks"] or []
    ]
    return {**config, "trainer": {**config["trainer"], "callbacks": callbacks}}


def _is_divergence(probe: Settings) -> bool:
    return bool(probe["class_path"].endswith("PathDivergence"))


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
