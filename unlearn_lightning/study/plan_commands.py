"""What `unlearn study CONFIG --plan` writes: each run's `unlearn fit` configuration and command, to be executed one by one.

write_commands(study, runs, Path("runs/demo"), console, len(runs))     # runs/demo/plan/*.yaml and commands.sh
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from unlearn_lightning.records import write_text
from unlearn_lightning.runs.run_key import UNREAD
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.run_spec import asks_retrained, with_comparisons
from unlearn_lightning.study.study_config import Settings, StudyConfig, merged

COMMANDS = "commands.sh"
"""The file that has all commands in their order."""


def write_commands(study: StudyConfig, runs: Sequence[Run], folder: Path, console: Console, shown: int) -> None:
    """Writes the runs' configurations and `commands.sh` to `folder`/plan, and prints the commands.

    Args:
        study: the study.
        runs: those that are planned, parents before children.
        folder: the study folder.
        console: where to print.
        shown: how many of the commands are printed.
    """
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
            _put(path, head + sections.text(planned_config(run, runs)), path.name in written)
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


def planned_config(run: Run, planned: Collection[Run]) -> Settings:
    """The run's whole configuration. It is compared with the retrained model where that comes before it in the plan or is finished."""
    config = with_comparisons(run.config, {name: other.folder for name, other in run.compare.items()})
    retrained = run.compare.get("retrained")
    if retrained is None or retrained not in planned:
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
