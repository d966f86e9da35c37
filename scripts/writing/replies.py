"""The log of replies: one JSON line each, on the disk before the next question starts, so that a killed process goes on from there.

with locked_log(Path("out.jsonl.asked.jsonl")) as replies:
    replies.is_open(question, attempts=3), replies.text(endpoint)
"""

import fcntl
import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from writing.endpoint import Endpoint, EndpointError


@dataclass(frozen=True)
class Question:
    """Messages to send. `variant` tells apart several askings of the same text; `about` is for the caller."""

    messages: tuple[dict[str, str], ...]
    about: Any = None
    variant: int = 0

    @property
    def id(self) -> str:
        """A hash of what is asked: an edited question is a new one."""
        return hashlib.sha256(json.dumps([self.messages, self.variant]).encode()).hexdigest()[:20]


@dataclass(frozen=True)
class Reply:
    """One line of the log: the answer to a question, or why there is none that is kept; tokens are null where the endpoint does not say."""

    question: str
    model: str
    answer: str | None
    rejected: str | None
    tokens_in: int | None
    tokens_out: int | None


class ReplyLog:
    """Appends replies to an open log, and knows from all of them what they cost and which questions are open."""

    def __init__(self, file: IO[bytes], replies: Sequence[Reply]) -> None:
        self.tokens_in = self.tokens_out = self.unpriced = 0
        self.asked, self.rejected, self.answered = Counter[str](), Counter[str](), set[str]()
        self._file = file
        for reply in replies:
            self._count(reply)

    def is_open(self, question: Question, attempts: int) -> bool:
        """Whether no answer of the question was kept, and it was asked less than `attempts` times."""
        return question.id not in self.answered and self.asked[question.id] < attempts

    def append(self, reply: Reply) -> None:
        """Writes a reply, which is on the disk when this returns."""
        self._file.write((json.dumps(asdict(reply), ensure_ascii=False) + "\n").encode())
        self._file.flush()
        os.fsync(self._file.fileno())
        self._count(reply)

    def cost(self, endpoint: Endpoint) -> float:
        """Dollars at the endpoint's prices."""
        return (self.tokens_in * (endpoint.price_in or 0) + self.tokens_out * (endpoint.price_out or 0)) / 1e6

    def text(self, endpoint: Endpoint) -> str:
        """For example `412 kept of 430 replies, 51,200 + 20,100 tokens, $0.03`."""
        parts = [f"{len(self.answered)} kept of {self.asked.total()} replies", f"{self.tokens_in:,} + {self.tokens_out:,} tokens"]
        parts += [] if None in (endpoint.price_in, endpoint.price_out) else [f"${self.cost(endpoint):.4f}"]
        parts += [f"{self.unpriced} replies without token counts"] if self.unpriced else []
        return ", ".join(parts)

    def _count(self, reply: Reply) -> None:
        self.asked[reply.question] += 1
        if reply.rejected is None:
            self.answered.add(reply.question)
        else:
            self.rejected[reply.rejected.partition(":")[0]] += 1
        self.unpriced += reply.tokens_in is None
        self.tokens_in += reply.tokens_in or 0
        self.tokens_out += reply.tokens_out or 0


@contextmanager
def locked_log(path: Path) -> Iterator[ReplyLog]:
    """Opens the log for one process at a time. A last line that a crash cut off is no reply and is removed.

    Raises:
        EndpointError: another process writes to it.
        ValueError: a line is no reply.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EndpointError(f"Another process writes to {path}. Wait for it, or choose another --out.") from None
        file.truncate(path.read_bytes().rfind(b"\n") + 1)
        yield ReplyLog(file, read_log(path))


def read_log(path: Path) -> list[Reply]:
    """Reads the replies up to the last whole line; behind it may be what another process is writing.

    Raises:
        ValueError: a line is no reply.
    """
    content = path.read_bytes() if path.is_file() else b""
    replies = []
    # Not str.splitlines: it would also break a line at U+2028 or U+0085 inside of an answer.
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), start=1):
        try:
            replies.append(Reply(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}:{number}: no reply ({error}). Was the file edited? Mend or delete that line.") from None
    return replies
