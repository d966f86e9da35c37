"""One run of a study as a process of its own, for launchers that start processes elsewhere (`Work.command` names it).

    python -m unlearn_lightning.study.one_run runs/demo/jobs/seed1-p4-npo.json

Several such processes, as srun or torchrun start them, are one run on several devices. The exit status is 0 when the run is finished, also
before; FAILED when it failed, which the same again would not mend; TOO_EARLY when what it starts from is not finished; anything else is a
process that died, or that ended because it was asked to (75, 143 or 130: preemption.py), and the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from unlearn_lightning.preemption import stoppable
from unlearn_lightning.records import is_finished
from unlearn_lightning.study.run_spec import RunSpec, note_failure, read_spec

FAILED, TOO_EARLY = 70, 71


def main(arguments: Sequence[str] | None = None) -> int:
    """Executes the run and returns the exit status."""
    parser = argparse.ArgumentParser(prog="unlearn_lightning.study.one_run", description="Executes one run of a study.")
    parser.add_argument("job", type=Path, help="The run's file in the study folder's jobs/.")
    parser.add_argument("--died", type=int, default=0, help="Only note that its process died so many times, and is given up.")
    options = parser.parse_args(arguments)
    job = read_spec(options.job)
    if options.died:
        note_failure(job, f"its process died {options.died} times (killed, or out of memory?)")
        return FAILED
    if missing := [folder.absolute() for folder in job.parents if not is_finished(folder)]:
        # SLURM 22.05 takes `afterok` as met when a waiting task of a job array has been cancelled. No failure: it only has to wait.
        print(f"{job.name} starts from {missing[0]}, which is not finished: was its job cancelled? Nothing was run.", file=sys.stderr)
        return TOO_EARLY
    command = shlex.join(["python", "-m", "unlearn_lightning.study.one_run", str(options.job)])
    return stoppable(lambda: _execute(job), command)


def _execute(job: RunSpec) -> int:
    from unlearn_lightning.study.execution import execute

    why = execute(job)
    if why is None:
        return 0
    print(f"{job.name}: {why}", file=sys.stderr)
    if int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", 0))) == 0:
        note_failure(job, why)
    return FAILED


if __name__ == "__main__":
    sys.exit(main())
