"""Worker processes for runs, each with devices of its own: a GPU serves one run at a time.

    with Workers(jobs=2, devices=["0", "1"]) as workers:
        if workers.room(1):
            workers.submit(1, work, job)            # gives a future; its process has CUDA_VISIBLE_DEVICES=0
        for future in workers.finished(timeout=0.2):
            future.result()                         # BrokenProcessPool where the process died; its neighbours go on

Nothing here imports torch at the top: a worker is told its devices before torch is loaded, because CUDA reads them only once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from unlearn_lightning.preemption import end_with_parent, listen

# Workers are spawned and not forked, because torch's threads and CUDA do not survive a fork.
START = "spawn"


class DevicePool:
    """Hands out device names to runs and takes them back, so that no device serves two runs at once."""

    def __init__(self, devices: Sequence[str]) -> None:
        self.devices = list(devices)
        self.free = list(devices)

    def take(self, count: int) -> list[str]:
        """Removes the first `count` free devices from the pool and returns their names."""
        taken, self.free = self.free[:count], self.free[count:]
        return taken

    def give_back(self, taken: Sequence[str]) -> None:
        """Returns the devices of an ended run to the pool, which keeps the order it was made with."""
        self.free = sorted([*self.free, *taken], key=self.devices.index)


class Workers:
    """Executes calls in up to `jobs` processes at a time.

    A run on GPUs gets a process of its own, so that its end frees all of its memory; the other runs share processes that stay.

    Args:
        jobs: how many runs are executed at a time.
        devices: the names that CUDA_VISIBLE_DEVICES may take, one per GPU.
    """

    def __init__(self, jobs: int, devices: Sequence[str]) -> None:
        self.jobs, self.devices = jobs, DevicePool(devices)
        self._others = set(multiprocessing.active_children())
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[Any], tuple[ProcessPoolExecutor, list[str]]] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.stop()
        for pool in [*self._idle, *(pool for pool, _ in self._busy.values())]:
            pool.shutdown(wait=True)

    def stop(self) -> None:
        """Asks all processes to end what they do at its next safe point (preemption.py); their calls then raise."""
        for process in set(multiprocessing.active_children()) - self._others:
            process.terminate()

    def room(self, devices: int) -> bool:
        """Whether a run on this number of GPUs could start now."""
        return len(self._busy) < self.jobs and devices <= len(self.devices.free)

    def submit(self, devices: int, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Calls the function, for which there must be room, in a process that sees this number of GPUs of its own.

        With 0 the process sees what this one sees.
        """
        taken = self.devices.take(devices)
        pool = _pool(taken) if taken or not self._idle else self._idle.pop()
        try:
            future = pool.submit(function, *arguments)
        except BrokenProcessPool:
            # The process was killed while it was idle, so that another one takes the call.
            pool = _pool(taken)
            future = pool.submit(function, *arguments)
        self._busy[future] = pool, taken
        return future

    def finished(self, timeout: float) -> list[Future[Any]]:
        """Waits until a call ends or `timeout` seconds have passed; returns the ended calls and puts their devices back into the pool."""
        done, _ = wait(self._busy, timeout, return_when=FIRST_COMPLETED)
        for future in done:
            pool, taken = self._busy.pop(future)
            if taken or future.exception() is not None:
                # The devices are free only when the process is gone, so that this waits for its end.
                pool.shutdown(wait=True)
                self.devices.give_back(taken)
            else:
                self._idle.append(pool)
        return list(done)


def _pool(devices: Sequence[str]) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, multiprocessing.get_context(START), _open_worker, (list(devices), os.getpid()))


def _open_worker(devices: Sequence[str], parent: int) -> None:
    """Runs in the worker before anything else is imported there. It is silent outside of runs, whose output goes to their logs.

    It ends with the process that started it, which also tells it to stop: Ctrl-C in a terminal goes to both.
    """
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listen(again_ends=False)
    # The descriptor and not sys.stderr, which log handlers keep: during a run it leads to the log.
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(devices)


def visible_devices() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them: those it names already, or else 0, 1, ..."""
    import torch

    return named_devices(torch.cuda.device_count(), os.environ.get("CUDA_VISIBLE_DEVICES"))


def named_devices(count: int, visible: str | None) -> list[str]:
    """Names of the `count` devices that are left by this value of CUDA_VISIBLE_DEVICES; null where it is not set."""
    if visible is None:
        return [str(index) for index in range(count)]
    return [name.strip() for name in visible.split(",")][:count]


def on_gpus(trainer: Mapping[str, Any]) -> bool:
    """Whether a run with these trainer settings takes GPUs where there are some."""
    return trainer["accelerator"] in ("auto", "gpu", "cuda")


def devices_of(trainer: Mapping[str, Any], there: int) -> int:
    """How many GPUs a run takes, by its trainer's settings; `auto` is one.

    Args:
        trainer: the `trainer` part of a run's configuration.
        there: how many there are.

    Raises:
        ValueError: it asks for more than there are, or for certain ones.
    """
    if not there or not on_gpus(trainer):
        return 0
    devices = trainer["devices"]
    if isinstance(devices, list) or (isinstance(devices, str) and "," in devices):
        raise ValueError(f"trainer.devices names the GPUs {devices}, but with --jobs each run is given its own: set how many it takes.")
    count = 1 if devices == "auto" else int(devices)
    if count > there:
        raise ValueError(f"trainer.devices asks for {count} GPUs, and {there} can be seen. Lower it, or set CUDA_VISIBLE_DEVICES.")
    return there if count == -1 else count
