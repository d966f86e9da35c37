"""The launcher on a SLURM cluster: submits the tree of a study and returns; nothing stays running where it was called.

    unlearn study configs/studies/paper_llama3.1-8b.yaml -c configs/launchers/slurm.yaml --launcher.partition gpu
    unlearn status runs/paper_llama3.1-8b

Runs that wait for the same runs and take the same resources are one job array. docs/cluster.md tells the rest.
"""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from unlearn_lightning.records import locked, write_text
from unlearn_lightning.study.launcher import Launcher
from unlearn_lightning.study.one_run import FAILED, TOO_EARLY
from unlearn_lightning.study.slurm_queue import QueueError, has_slurm, log_of, note_submission, queue, queued, slurm
from unlearn_lightning.study.workers import devices_of, on_gpus

if TYPE_CHECKING:
    from unlearn_lightning.study.run import Run
    from unlearn_lightning.study.work import Work

# Seconds before its time limit at which a run is asked to save and end; it may take preemption.GRACE of them.
WARNING = 120

RUN_SCRIPT = """\
jobs=({jobs})
task="${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" job="${{jobs[$SLURM_ARRAY_TASK_ID]}}" times="${{SLURM_RESTART_COUNT:-0}}" late=""
# False where somebody has cancelled the job, or SLURM has put it back into the queue itself.
mine() {{ [[ "$(scontrol show job "$task")" == *JobState=RUNNING*Restarts="$times "* ]]; }}
# Handed on to the run's processes, which save at the end of their step.
trap 'late=yes; scancel --signal=USR1 "$task"' USR1
set -e
{setup}
set +e
srun --kill-on-bad-exit=1{cpus} {python} -m unlearn_lightning.study.one_run "$job" &
step=$!
wait $step
code=$?
# The signal before the time limit ends `wait` early.
while kill -0 $step 2> /dev/null; do wait $step; code=$?; done
if [ $code -ne 0 ] && [ $code -ne {failed} ] && [ $code -ne {too_early} ] && mine; then
  # Back into the queue, which ends this script.
  [ "$times" -lt {retries} ] && scontrol requeue "$task" && sleep 600
  if [ "$late" ]; then
    echo "Its time was up $((times + 1)) times. The same command (unlearn study) submits it again, and it goes on where it was." >&2
  else
    {python} -m unlearn_lightning.study.one_run "$job" --died $((times + 1))
  fi
fi
exit $code
"""


@dataclass(frozen=True)
class _Resources:
    """The resources that a run asks SLURM for."""

    nodes: int
    tasks_per_node: int
    cpus: int | None


class Slurm(Launcher):
    """Submits a study with `sbatch`, job arrays for equal siblings, and returns. The report is made by the last job.

    Args:
        partition: null for the cluster's default.
        account: who pays; null for the user's default.
        gpus: GPUs of a run on each of its nodes; 0 asks for none.
        cpus: CPU cores for each process of a run; null for the study's `threads`, or one.
        memory: of a run on each of its nodes, such as 64G; null for the cluster's default.
        time: limit of one run, such as 12:00:00; one that needs longer goes on where it was, `max_retries` times at most.
        sbatch: further options of sbatch, such as ['--constraint=a100', '--qos=long'].
        setup: lines of shell that each job begins with, such as `source .venv/bin/activate`.
        python: the command for Python on the nodes; null for the Python that submits.
        max_retries: how often a run whose process died (killed, out of memory, its node lost) or ran out of time is put back.
    """

    def __init__(
        self, partition: str | None = None, account: str | None = None, gpus: int = 0, cpus: int | None = None, memory: str | None = None,
        time: str | None = None, sbatch: tuple[str, ...] = (), setup: str = "", python: str | None = None, max_retries: int = 2,
    ) -> None:  # fmt: skip
        for name, value, least in (("gpus", gpus, 0), ("cpus", cpus, 1), ("max_retries", max_retries, 0)):
            if value is not None and value < least:
                raise ValueError(f"launcher.{name} must be at least {least}, got {value}.")
        if bad := [option for option in sbatch if not option.startswith("-")]:
            raise ValueError(f"launcher.sbatch holds options such as '--qos=long', got {bad[0]!r}.")
        self.partition, self.account, self.gpus, self.cpus, self.memory, self.time = partition, account, gpus, cpus, memory, time
        self.sbatch, self.setup, self.python, self.max_retries = sbatch, setup, python or shlex.quote(sys.executable), max_retries

    def launch(self, work: Work) -> bool:
        """Submits what is neither finished nor in the queue."""
        if not has_slurm():
            raise ValueError(
                "The slurm launcher needs sbatch and squeue, which are not on this machine: call it where jobs are submitted. "
                "scripts/slurm_here starts a SLURM for trying it."
            )
        resources = {run.key: self._resources(run, work.study.threads) for run in work.runs}
        try:
            # One submitter at a time for all studies that share the store.
            with locked(work.runs[0].folder.parent / "slurm") as lock:
                return _Submission(self, work, resources, lock).submit()
        except QueueError as error:
            raise ValueError(f"SLURM refused: {error}") from None

    def _resources(self, run: Run, threads: int | None) -> _Resources:
        trainer = run.config["trainer"]
        devices = trainer["devices"]
        if on_gpus(trainer) and self.gpus:
            devices = devices_of(trainer, self.gpus) if str(devices) != "auto" else self.gpus
        elif str(devices) == "auto" or not isinstance(devices, int | str) or not str(devices).isdigit():
            devices = 1
        if trainer["accelerator"] in ("gpu", "cuda") and not self.gpus:
            raise ValueError(f"{run.name} trains on a GPU, and launcher.gpus is 0: set how many each node of a run has.")
        return _Resources(int(trainer["num_nodes"]), int(devices), self.cpus or threads)

    def header(self, name: str, log: str, run: _Resources | None, more: list[str]) -> list[str]:
        """Returns the lines with the options of a job."""
        options: dict[str, str | int | None] = {
            "job-name": name, "output": log, "open-mode": "append", "chdir": str(Path.cwd()), "partition": self.partition,
            "account": self.account, "time": self.time,
        }  # fmt: skip
        if run:
            options |= {
                "nodes": run.nodes, "ntasks-per-node": run.tasks_per_node, "cpus-per-task": run.cpus, "mem": self.memory,
                "gpus-per-node": self.gpus or None, "signal": f"B:USR1@{WARNING}",
            }  # fmt: skip
        said = [shlex.quote(f"--{name}={value}") for name, value in options.items() if value is not None]
        return [f"#SBATCH {option}" for option in [*said, "--requeue", "--kill-on-invalid-dep=yes", *more, *self.sbatch]]


class _Submission:
    """One call of sbatch after the other, parents first."""

    def __init__(self, launcher: Slurm, work: Work, resources: dict[str, _Resources], lock: int) -> None:
        self.launcher, self.work, self.resources, self.lock = launcher, work, resources, lock
        self.folder = work.folder.absolute() / "slurm"
        self.tasks = queue()
        there = queued({run.key: run.folder for run in work.runs}, self.tasks)
        self.before = {key: task for key, task in there.items() if key not in work.done}
        self.ids = {key: task.id for key, task in self.before.items()}

    def submit(self) -> bool:
        work = self.work
        missing = [run for run in work.runs if run.key not in work.done and run.key not in self.ids]
        todo, left_out = ([run for run in missing if work.given_up(run) is hopeless] for hopeless in (False, True))
        if not todo and not self.ids:
            return True
        work.begin()
        arrays = [self._submit_array(group) for group in self._groups(todo)]
        self._say(f"Submitted: {len(todo)} runs." + (f" Job arrays: {', '.join(arrays)}." if arrays else ""))
        self._say(f"In the queue already: {len(self.before)}. Finished already: {len(work.done)}.")
        for run in left_out:
            self._say(f"Left out, add --retry-failed: {run.name} ({work.failed.get(run.key, 'waits for a run that failed')})")
        needed, old = {id_.partition("_")[0] for id_ in self.ids.values()}, self._report_jobs()
        # A report job that was left behind by a submitter that was killed may wait for fewer runs.
        enough = [id_ for id_, after in old.items() if after >= needed][-1:]
        if not enough:
            self._say(f"The report is made by job {self._submit_report(needed)}, when nothing of the study runs any more.")
        for id_ in old.keys() - enough:
            slurm("scancel", id_)
        self._say(f"This shell is not needed any more: `unlearn status {work.folder}`, `unlearn watch {work.folder}`.")
        return False

    def _say(self, line: str) -> None:
        self.work.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _groups(self, todo: list[Run]) -> list[list[Run]]:
        """Runs that wait for the same and take the same, in an order in which what they wait for comes before them."""
        groups: dict[tuple[_Resources, tuple[str, ...], tuple[str, ...]], list[Run]] = {}
        for run in todo:
            groups.setdefault((self.resources[run.key], *self._waits_for(run)), []).append(run)
        ordered, open_ = [], {run.key for run in todo}
        while groups:
            place = next(place for place in groups if not open_ & {*place[1], *place[2]})
            ordered.append(groups.pop(place))
            open_ -= {run.key for run in ordered[-1]}
        return ordered

    def _waits_for(self, run: Run) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Keys of the runs that must succeed, and of those that must end, before this one starts."""
        parents = tuple(parent.key for parent in run.parents if parent.key not in self.work.done)
        retrained = self.work.awaited(run)
        return parents, (retrained.key,) if retrained else ()

    def _submit_array(self, group: list[Run]) -> str:
        launcher, first = self.launcher, group[0]
        parents, retrained = self._waits_for(first)
        waits = [f"afterok:{self.ids[key]}" for key in parents] + [f"afterany:{self.ids[key]}" for key in retrained]
        script = self._new_script(first.name)
        files = [self.work.command(self.work.start(run))[-1] for run in group]
        array = [f"--array=0-{len(group) - 1}", *([f"--dependency={','.join(waits)}"] if waits else [])]
        name = f"{self.work.study.name}/{first.name}" + (f"+{len(group) - 1}" if len(group) > 1 else "")
        log = str(log_of(str(script), 0)).removesuffix("0.out") + "%a.out"
        resources = self.resources[first.key]
        body = RUN_SCRIPT.format(
            jobs=shlex.join(files), retries=launcher.max_retries, setup=launcher.setup, python=launcher.python, failed=FAILED,
            too_early=TOO_EARLY, cpus=f" --cpus-per-task={resources.cpus}" if resources.cpus else "",
        )  # fmt: skip
        head = f"# {', '.join(run.name for run in group)} of the study {self.work.study.name}: one task each."
        write_text(script, "\n".join(["#!/bin/bash", head, *launcher.header(name, log, resources, array), body]))
        for index, run in enumerate(group):
            note_submission(run.folder, script, index)
        id_ = self._sbatch(script)
        self.ids |= {run.key: f"{id_}_{index}" for index, run in enumerate(group)}
        return id_

    def _report_jobs(self) -> dict[str, set[str]]:
        """Jobs that wait to make this study's report, in their order -> the job arrays that each waits for."""
        listed = slurm("squeue", "--me", "--noheader", "--states=PENDING", "--sort=i", "--format=%A|%o").splitlines()
        scripts = {id_: Path(script) for id_, script in (line.split("|", 1) for line in listed)}
        mine = {id_: file.read_text() for id_, file in scripts.items() if file.parent == self.folder and file.name.endswith("-report.sh")}
        return {id_: set(re.findall(r"\d+", re.findall("--dependency=afterany:(.*)", text)[0])) for id_, text in mine.items()}

    def _submit_report(self, arrays: set[str]) -> str:
        """The last job; it starts when all others have ended, however they do."""
        launcher, script = self.launcher, self._new_script("report")
        after = ":".join(sorted(arrays, key=int))
        name, log = f"{self.work.study.name}/report", str(script.with_suffix(".out"))
        head = f"# The report of the study {self.work.study.name}, when nothing of it runs any more."
        command = f"{launcher.python} -m unlearn_lightning.main report {shlex.quote(str(self.folder.parent))} --upload\n"
        options = launcher.header(name, log, None, [f"--dependency=afterany:{after}"])
        write_text(script, "\n".join(["#!/bin/bash", head, *options, launcher.setup, command]))
        return self._sbatch(script)

    def _new_script(self, name: str) -> Path:
        count = len(list(self.folder.glob("*.sh"))) + 1
        return self.folder / f"{count:03d}-{name.replace('/', '-')}.sh"

    def _sbatch(self, script: Path) -> str:
        # An sbatch that outlives this process keeps the lock, so that the next submitter sees what it submits.
        return slurm("sbatch", "--parsable", str(script), keep=(self.lock,)).strip().partition(";")[0]
