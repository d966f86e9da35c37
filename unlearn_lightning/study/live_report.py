"""Keeps a study's page up to date while the study runs: `unlearn report --live` in a process of its own, when more runs are finished."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from unlearn_lightning.report.live import read_version


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
        self._began = 0.0
        self._next = time.monotonic() + first

    def refresh(self, finished: int) -> None:
        """Starts making the page if its time has come and it does not show so many finished runs already; returns at once."""
        if self._busy() or time.monotonic() < self._next or not finished or read_version(self.folder / "report") == 2 + finished:
            return
        # Runs come first: this waits wherever they want the core.
        command = ["nice", "-n", "19", sys.executable, "-m", "unlearn_lightning.main", "report", str(self.folder), "--live"]
        self._began = time.monotonic()
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
        """Waits until the page that is being made is whole."""
        if self._process is not None:
            self._process.wait()
