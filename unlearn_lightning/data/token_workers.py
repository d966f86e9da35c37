"""Makes something of many pieces on all cores, in the pieces' order: the tokens of a large source, which take minutes on one.

    for table in in_order(make, range(0, len(rows), 1000)):
        ...

Processes are forked, as those of PyTorch's data loaders are, so that they see the source and the tokenizer without a copy. They touch no
tensor, and the tokenizer's own threads, which do not survive a fork, are off in them.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from unlearn_lightning.preemption import end_with_parent

Made = TypeVar("Made")
# More processes than the writer of what they make can follow.
MOST = 16
# Pieces that are made ahead of the one that is taken, for each process: what is made waits in memory.
AHEAD = 2
# What is made of a piece, in the processes that make it.
_work: Callable[[Any], Any] | None = None


def processes(pieces: int) -> int:
    """How many processes make this number of pieces; 1 for few pieces, and where a fork is unsafe (macOS) or there is none (Windows)."""
    if sys.platform != "linux":
        return 1
    return max(1, min(len(os.sched_getaffinity(0)), pieces // AHEAD, MOST))


def in_order(work: Callable[[int], Made], pieces: Sequence[int]) -> Iterator[Made]:
    """What the work makes of each piece; whatever it raises is raised here.

    Args:
        work: makes something that can be pickled of one piece, and changes nothing that this process sees.
        pieces: in the order in which what is made of them is given.

    Raises:
        RuntimeError: a process was killed, for want of memory as a rule.
    """
    count = processes(len(pieces))
    if count == 1:
        yield from map(work, pieces)
        return
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(count, context, _open, (work, os.getpid())) as pool:
        waiting: deque[Future[Made]] = deque()
        try:
            for piece in pieces:
                waiting.append(pool.submit(_make, piece))
                if len(waiting) > AHEAD * count:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise RuntimeError(
                f"One of {count} processes that make tokens was killed, as a rule for want of memory. Fewer need less: "
                "`taskset -c 0` before the command leaves one."
            ) from None
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _open(work: Callable[[int], Any], parent: int) -> None:
    """Runs first in each process: it ends with the one that forked it, which also tells it to stop."""
    global _work
    _work = work
    end_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _make(piece: int) -> Any:
    assert _work is not None
    return _work(piece)
