"""What SLURM's queue holds of a study's runs. Reads files and asks `squeue`; no torch, no daemon of ours.

for task in queue():
    print(task.id, task.state, task.reason, task.script, task.index)     # 12_1 PENDING Dependency /.../slurm/002-seed1-p4-npo.sh 1

A submission is a script in `<study>/slurm/`, a job array of one task a run. Which script and task a run belongs to stands in its run
folder's job.json before sbatch is called, so that a submitter killed at any point leaves nothing that the next would not find.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unlearn_lightning.records import read_json, write_json

# The fields of squeue, the script last because a path may hold anything.
FIELDS = "%F|%K|%T|%r|%o"


class QueueError(Exception):
    """The queue cannot be asked; the message says why."""


@dataclass(frozen=True)
class Task:
    """A task of a job array that is waiting or running.

    Attributes:
        array, index: of the job array and in it.
        state, reason: as squeue gives them, such as PENDING and Dependency.
        script: what was submitted.
    """

    array: str
    index: int
    state: str
    reason: str
    script: str

    @property
    def id(self) -> str:
        """What scancel and scontrol call it."""
        return f"{self.array}_{self.index}"

    @property
    def said(self) -> str:
        """Describes the task in a line, such as `job 12_1 pending (Dependency)`."""
        return f"job {self.id} {self.state.lower()}" + (f" ({self.reason})" if self.reason != "None" else "")


def has_slurm() -> bool:
    """Whether SLURM's commands are here."""
    return shutil.which("sbatch") is not None and shutil.which("squeue") is not None


def queue() -> list[Task]:
    """All tasks of this user's job arrays that wait or run.

    Raises:
        QueueError: squeue is not here, or SLURM does not answer.
    """
    if not has_slurm():
        raise QueueError("squeue is not on this machine")
    found = []
    for line in slurm("squeue", "--me", "--noheader", "--array", f"--format={FIELDS}").splitlines():
        array, index, state, reason, script = line.split("|", 4)
        if index.isdigit():
            found.append(Task(array, int(index), state, reason, script))
    return found


def slurm(*command: str, keep: Sequence[int] = ()) -> str:
    """The output of one of SLURM's commands.

    Args:
        command: its words.
        keep: descriptors of files that it holds open as well.

    Raises:
        QueueError: it failed; the message is what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False, pass_fds=keep)
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise QueueError(f"{command[0]}: {said[-1].removeprefix(f'{command[0]}: ').removeprefix('error: ')}")
    return done.stdout


def note_submission(folder: Path, script: Path, index: int) -> None:
    """Writes into a run folder which task will execute the run."""
    write_json(folder / "job.json", {"script": str(script), "index": index})


def submission(folder: Path) -> tuple[str, int] | None:
    """The script and task that a run was last submitted with; None when it never was."""
    if not (folder / "job.json").is_file():
        return None
    content = read_json(folder / "job.json")
    return content["script"], content["index"]


def log_of(script: str, index: int) -> Path:
    """Where SLURM puts what a task prints: what happened before and after the run, whose own log is log.txt in its folder."""
    return Path(script).with_suffix(f".{index}.out")


def queued(folders: Mapping[str, Path], tasks: Sequence[Task]) -> dict[str, Task]:
    """Key -> the task that will execute or executes the run, for the runs that have one.

    Args:
        folders: key -> run folder.
        tasks: the queue.
    """
    by_place = {(task.script, task.index): task for task in tasks}
    places = {key: submission(folder) for key, folder in folders.items()}
    return {key: by_place[place] for key, place in places.items() if place in by_place}
