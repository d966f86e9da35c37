"""Real processes that begin as a copy of the test's own: `unlearn` starts in milliseconds, where its imports cost eight seconds of CPU.

    process = Forked(lambda: main(["study", "small.yaml"]), cwd=tmp_path, WANDB_MODE="offline")
    process.kill()
    assert process.wait() == -signal.SIGKILL, process.stderr()

What a fork cannot show, namely how the command starts by itself and starts further processes, is in test_same_step.py.
"""

import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time

FORK = multiprocessing.get_context("fork")


def until(condition, process=None, seconds=240):
    """Waits until the condition holds; a process that ended without it fails the test at once, and not after the time."""
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert process is None or process.poll() is None or condition(), f"the process ended:\n{process.stdout()}\n{process.stderr()}"
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


class Forked:
    """A process that does the work and ends with the exit status that it gives. Ctrl-C and SIGTERM do in it what they do in a fresh one.

    Args:
        work: called in the process.
        cwd: the folder that it works in.
        environment: added to its variables.
    """

    def __init__(self, work, cwd=".", **environment):
        self._files = [tempfile.TemporaryFile() for _ in ("stdout", "stderr")]  # noqa: SIM115
        self._process = FORK.Process(target=self._run, args=(work, str(cwd), environment))
        self._process.start()
        self.pid, self.kill, self.terminate = self._process.pid, self._process.kill, self._process.terminate

    def _run(self, work, cwd, environment):
        os.chdir(cwd)
        os.environ.update(environment)
        for descriptor, file in zip((1, 2), self._files, strict=True):
            os.dup2(file.fileno(), descriptor)
        # In place of pytest's own, which are files without a descriptor that the work could redirect.
        sys.stdout, sys.stderr = (os.fdopen(descriptor, "w", buffering=1, closefd=False) for descriptor in (1, 2))
        sys.__stdout__, sys.__stderr__ = sys.stdout, sys.stderr
        for name in list(logging.root.manager.loggerDict):
            for handler in logging.getLogger(name).handlers:
                if type(handler) is logging.StreamHandler:
                    handler.stream = sys.stderr  # Not by setStream, which flushes the former one: a test before may have closed it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.exit(work())

    def poll(self):
        return self._process.exitcode

    def wait(self, timeout=250):
        """The exit status; negative for the signal that ended it."""
        # Asked again and again, for `join` waits for all that it has started, too.
        end = time.monotonic() + timeout
        while self.poll() is None:
            assert time.monotonic() < end, f"it has not ended in {timeout} s:\n{self.stdout()}\n{self.stderr()}"
            time.sleep(0.01)
        return self.poll()

    def stdout(self):
        return self._text(0)

    def stderr(self):
        return self._text(1)

    def _text(self, index):
        # By its place, which the processes share with the file's own position.
        file = self._files[index]
        return os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode()


def together(*works, cwd=".", timeout=500):
    """Does the works at the same time, each in a process of its own; gives what they printed when all have ended well.

    A work is a function without arguments, or such a function and the variables of its environment.
    """
    processes = [Forked(work, cwd) if callable(work) else Forked(work[0], cwd, **work[1]) for work in works]
    try:
        codes = [process.wait(timeout) for process in processes]
    finally:
        for process in processes:
            process.kill()
    said = [process.stdout() + process.stderr() for process in processes]
    assert not any(codes), "\n".join(text[-4000:] for text in said)
    return said
