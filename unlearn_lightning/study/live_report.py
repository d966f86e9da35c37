"""Keeps a study's page up to date while the study runs: `unlearn report --live` in a process of its own, when more runs are finished.

The last page, which follows nothing, is not its matter: whoever sees the end of the study makes that itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from unlearn_lightning.preemption import end_with_parent


class LiveReport:
    """Makes the page again and again, with a small share of one core.

    Args:
        folder: the study folder.
        share: of the time that may go into it, at most.
        first: seconds before the first.
    """

    def __init__(self, folder: Path, share: float, first: float = 0.0) -> None:
        self.folder, self.share = folder, share
        self._process: subprocess.Popen[bytes] | None = None
        self._began, self._shown = 0.0, 0
        self._next = time.monotonic() + first

    def refresh(self, finished: int) -> None:
        """Starts making the page if its time has come and more runs are finished than it shows; returns at once."""
        if self._busy() or time.monotonic() < self._next or finished <= self._shown:
            return
        command = [sys.executable, "-m", "unlearn_lightning.study.live_report", str(self.folder), str(os.getpid())]
        self._began, self._shown = time.monotonic(), finished
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _busy(self) -> bool:
        if self._process is None:
            return False
        if self._process.poll() is None:
            return True
        now = time.monotonic()
        self._process, self._next = None, now + (now - self._began) / self.share
        return False

    def close(self) -> None:
        """Ends the making of a page: at its low priority it may take minutes where others want the core, and a newer one is due."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()


def _make(folder: str, parent: int) -> int:
    from unlearn_lightning.report.command import report

    # Runs come first: this waits wherever they want the core.
    os.nice(19)
    end_with_parent(parent)
    return report([folder, "--live"])


if __name__ == "__main__":
    sys.exit(_make(sys.argv[1], int(sys.argv[2])))
