"""A study on a real SLURM on this machine (scripts/slurm_here): killed jobs, a dead node, a submitter that is gone; and what is submitted."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import yaml
from runs import UNLEARN
from test_study import small

from unlearn_lightning.main import main
from unlearn_lightning.records import read_records, read_run, read_study
from unlearn_lightning.study.slurm_queue import queue, slurm
from unlearn_lightning.study.state import study_states

HERE = Path(__file__).parents[1] / "scripts" / "slurm_here"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue")
MISSING = [name for name in PROGRAMS if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
needs_slurm = pytest.mark.skipif(bool(MISSING), reason=f"no {', '.join(MISSING)}; `apt-get install munge slurmctld slurmd slurm-client`")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A SLURM with two nodes. It ends with this process, even when that is killed."""
    folder = tmp_path_factory.mktemp("slurm") / "here"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_HERE", str(folder))
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        # The nodes' names are no host names.
        patch.setenv("MASTER_ADDR", "127.0.0.1")
        subprocess.run([HERE, "start", "--while", str(os.getpid())], check=True, capture_output=True)
        yield folder
        subprocess.run([HERE, "stop"], check=True, env={k: v for k, v in os.environ.items() if k != "SLURM_CONF"})


def until(condition, seconds=150):
    """Waits without work: these tests are mostly waiting, beside others."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, slurm("squeue", "--array", "--long") if not MISSING else ""
        time.sleep(0.3)
    return found
