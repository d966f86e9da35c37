"""`unlearn status FOLDER`: the tree of a study with how each run is doing, also while it runs in another shell or on a cluster.

unlearn status runs/demo
unlearn status runs/mine                # one run, or a folder of runs
unlearn status runs/demo --verify       # hashes every file that its runs made
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.text import Text
from rich.tree import Tree

from unlearn_lightning.cli import subcommand
from unlearn_lightning.cli.terminal import terminal_console
from unlearn_lightning.records.entries import entries
from unlearn_lightning.records.places import missing
from unlearn_lightning.records.texts import plain_text
from unlearn_lightning.study.slurm_queue import QueueError, Task, queue
from unlearn_lightning.study.state import COLOURS, RunState, counts, is_submitted, study_states
from unlearn_lightning.study.verify import verify


def parser() -> argparse.ArgumentParser:
    """The arguments of `unlearn status`."""
    found = argparse.ArgumentParser(
        prog="unlearn status",
        description="Shows how each run of a study, or of a folder of runs, is doing, from its files and SLURM's queue.",
    )
    found.add_argument("folder", type=Path, help="The study folder, such as runs/demo, a run folder, or a folder of runs.")
    found.add_argument(
        "--verify", action="store_true", help="Hash every file that the runs made, and name those that are not as they were written."
    )
    return found


def status(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 2 when there is no readable study or run, 1 when --verify found a difference."""
    differences: list[str] = []

    def show(options: argparse.Namespace) -> None:
        if options.verify:
            differences.extend(_verify(options.folder))
        else:
            _show(options.folder)

    return subcommand.run(parser(), arguments or ["--help"], show) or int(bool(differences))


def _verify(folder: Path) -> list[str]:
    lines, looked_at = verify(folder)
    console = terminal_console()
    for line in lines:
        console.print(plain_text(line), markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"{looked_at}: {len(lines) or 'none'} {'differ' if len(lines) > 1 else 'differs'}.", markup=False, highlight=False, soft_wrap=True
    )
    return lines


def _show(folder: Path) -> None:
    tasks, note = tasks_of(folder)
    runs = study_states(folder, tasks)
    console = terminal_console()
    console.print(tree_of(runs, title=f"{folder}: {counts(runs)}"))
    for line in (note, missing(folder, entries(folder))):
        if line:
            console.print(line, markup=False, style="yellow", soft_wrap=True)


def tasks_of(folder: Path) -> tuple[list[Task] | None, str]:
    """The queue, where the study was submitted to one, and what to say where it cannot be asked."""
    if not is_submitted(folder):
        return None, ""
    try:
        return queue(), ""
    except QueueError as error:
        return None, f"The queue could not be asked ({error}); this is from the files alone."


def tree_of(runs: Sequence[RunState], title: str) -> Tree:
    """Each run below the one that it starts from."""
    root = Tree(Text(title), guide_style="dim")
    nodes: dict[str, Tree] = {}
    for run in runs:
        above = next((nodes[key] for key in run.parents if key in nodes), root)
        nodes[run.key] = above.add(_line(run))
    return root


def _line(run: RunState) -> Text:
    line = Text.assemble(run.name, "  ", (run.state, COLOURS[run.state]))
    if run.step is not None:
        line.append(f"  {run.step} steps" if run.state == "finished" else f"  {run.step} of {run.steps} steps")
    if run.task and run.state != "finished":
        line.append(f"  {run.task.said}", style="dim")
    if run.why and run.state in ("finished", "failed", "ready", "stopped"):
        line.append(f"  {run.why}", style="dim")
    return line
