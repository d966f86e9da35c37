"""Asking an OpenAI-compatible endpoint many questions, so that a crash loses nothing and nothing recorded is asked again.

    totals = ask_all(questions, Endpoint(model="a-model"), Path("out.asked.jsonl"), check=lambda question, answer: None)

Every reply is one line of the log (append-only JSON lines, on disk before the next question starts). `scripts/write_refusals.py` and
`scripts/rewrite_gsm8k.py` are made of this.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""HTTP statuses that pass: too many requests, and servers in trouble."""
NO_REPLY = "no reply: "
HOPELESS = 8
"""So many replies without an answer before the first good one, and the endpoint is not what it is taken for."""


class EndpointError(RuntimeError):
    """The endpoint cannot go on; what was recorded stays."""


@dataclass(frozen=True)
class Endpoint:
    """Where answers come from, and what they cost.

    Args:
        model: the model's name there.
        url: base address, in front of /chat/completions; null for the environment variable OPENAI_BASE_URL, or else OpenAI's.
        key_variable: environment variable that holds the key; it may be unset for a server of your own. The key is never written.
        temperature: of sampling; null leaves it to the endpoint.
        max_tokens: longest answer in tokens; null leaves it to the endpoint.
        concurrency: questions under way at a time.
        timeout: seconds without a sign of life after which a question is asked again.
        retries: how often one question is tried again after a time-out, a lost connection or a busy server, before everything stops.
        backoff: seconds before the first retry; doubled each time up to a minute, shortened by chance, at least what Retry-After asks.
        price_in: dollars per million tokens read; null shows tokens only.
        price_out: dollars per million tokens written; null shows tokens only.
        budget: dollars after which no further question starts; null for no limit. Needs the prices, and replies that state their tokens.
    """

    model: str
    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = 1.0
    max_tokens: int | None = None
    concurrency: int = 4
    timeout: float = 60.0
    retries: int = 6
    backoff: float = 1.0
    price_in: float | None = None
    price_out: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        for name, least in {"concurrency": 1, "retries": 0, "backoff": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"endpoint.{name} must be at least {least}, got {getattr(self, name)}.")
        if not self.address.startswith(("http://", "https://")):
            raise ValueError(f"endpoint.url must start with http:// or https://, such as http://localhost:8000/v1; got {self.url!r}.")
        if not self.timeout > 0:
            raise ValueError(f"endpoint.timeout must be greater than 0 seconds, got {self.timeout}.")
        if self.budget is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("endpoint.budget needs endpoint.price_in and endpoint.price_out, in dollars per million tokens.")

    @property
    def address(self) -> str:
        """The full address of chat completions."""
        base = self.url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return base.rstrip("/") + "/chat/completions"


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


@dataclass
class Totals:
    """Replies of all calls so far: how many, tokens, and why answers were not kept."""

    replies: int = 0
    kept: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    unpriced: int = 0
    """Replies that did not say how many tokens they took."""
    rejected: Counter[str] = field(default_factory=Counter)

    def add(self, line: dict[str, Any]) -> None:
        self.replies += 1
        self.kept += line["rejected"] is None
        if line["rejected"] is not None:
            self.rejected[line["rejected"].partition(":")[0]] += 1
        self.unpriced += line["tokens_in"] is None
        self.tokens_in += line["tokens_in"] or 0
        self.tokens_out += line["tokens_out"] or 0

    def cost(self, endpoint: Endpoint) -> float | None:
        """Dollars; null without prices."""
        if endpoint.price_in is None or endpoint.price_out is None:
            return None
        return (self.tokens_in * endpoint.price_in + self.tokens_out * endpoint.price_out) / 1e6

    def text(self, endpoint: Endpoint) -> str:
        """For example `412 kept of 430 replies, 51,200 + 20,100 tokens, $0.03`."""
        cost = self.cost(endpoint)
        parts = [f"{self.kept} kept of {self.replies} replies", f"{self.tokens_in:,} + {self.tokens_out:,} tokens"]
        parts += [] if cost is None else [f"${cost:.4f}"]
        parts += [f"{self.unpriced} replies without token counts"] if self.unpriced else []
        return ", ".join(parts)


def read_log(path: Path) -> list[dict[str, Any]]:
    """All recorded replies. A last line that a crash cut off is no reply and is removed from the file.

    Raises:
        ValueError: another line is not JSON in UTF-8.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        with path.open("r+b") as file:
            file.truncate(len(whole))
    lines = []
    # Not str.splitlines: it would also break a line at U+2028 or U+0085 inside of an answer.
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            lines.append(json.loads(line))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: not JSON ({error}). Was the file edited? Mend or delete that line.") from None
    return lines


@contextmanager
def only_one(path: Path) -> Iterator[Any]:
    """Opens the log for appending, for one process at a time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EndpointError(f"Another process writes to {path}. Wait for it, or choose another --out.") from None
        yield file


def ask_all(
    questions: Sequence[Question],
    endpoint: Endpoint,
    log: Path,
    check: Callable[[Question, str], str | None],
    attempts: int = 3,
    show: Callable[[Totals, int], None] = lambda totals, left: None,
) -> Totals:
    """Asks whatever the log does not hold yet, and records every reply.

    Args:
        check: why an answer is not kept, beginning with a few words and a colon; null to keep it.
        attempts: how often a question is asked whose answers are not kept.
        show: called after each reply with the totals and how many questions are still open.

    Raises:
        EndpointError: the endpoint refuses the key or the model, stays away, or gives no answers at all; or the budget is spent.
    """
    with only_one(log) as file:
        lines = read_log(log)
        run = _Run(endpoint, check, attempts, show, file, lines)
        run.open_questions = [q for q in {q.id: q for q in questions}.values() if run.still_open(q)]
        run.work()
        return run.totals


class _Run:
    def __init__(
        self,
        endpoint: Endpoint,
        check: Callable[[Question, str], str | None],
        attempts: int,
        show: Callable[[Totals, int], None],
        file: Any,
        lines: Sequence[dict[str, Any]],
    ) -> None:
        self.endpoint, self.check, self.attempts, self.show, self.file = endpoint, check, attempts, show, file
        self.lock, self.stop, self.totals = threading.Lock(), threading.Event(), Totals()
        self.asked: Counter[str] = Counter()
        self.done: set[str] = set()
        self.open_questions: list[Question] = []
        self.left = self.answers = self.silent = 0
        self.failure: BaseException | None = None
        self.key = _key(endpoint.key_variable)
        for line in lines:
            self._count(line)

    def still_open(self, question: Question) -> bool:
        return question.id not in self.done and self.asked[question.id] < self.attempts

    def work(self) -> None:
        waiting = iter(self.open_questions)
        self.left = len(self.open_questions)
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        workers = self.endpoint.concurrency
        with httpx.Client(headers=headers, timeout=self.endpoint.timeout) as client, ThreadPoolExecutor(workers) as pool:
            futures = [pool.submit(self._worker, client, waiting) for _ in range(workers)]
            try:
                for future in futures:
                    future.result()
            except BaseException as error:  # the user's interrupt: what is under way is still recorded
                self.failure = self.failure or error
                self.stop.set()
        if self.failure:
            raise self.failure

    def _worker(self, client: httpx.Client, waiting: Iterator[Question]) -> None:
        try:
            while not self.stop.is_set():
                with self.lock:
                    question = next(waiting, None)
                    if question is not None:
                        self._check_budget()
                if question is None:
                    return
                while self.still_open(question) and not self.stop.is_set():
                    self._record(question, self._reply(client, question))
                with self.lock:
                    self.left -= 1
        except BaseException as error:
            self.failure = self.failure or error
            self.stop.set()

    def _check_budget(self) -> None:
        cost, budget = self.totals.cost(self.endpoint), self.endpoint.budget
        if budget is not None and cost is not None and cost >= budget:
            raise EndpointError(f"The budget of ${budget:g} is spent (${cost:.4f}). Raise endpoint.budget to go on.")

    def _reply(self, client: httpx.Client, question: Question) -> dict[str, Any]:
        """The endpoint's reply as a log line, asked again while the trouble is one that passes."""
        body: dict[str, Any] = {"model": self.endpoint.model, "messages": list(question.messages)}
        body |= {name: value for name in ("temperature", "max_tokens") if (value := getattr(self.endpoint, name)) is not None}
        trouble = ""
        for retry in range(self.endpoint.retries + 1):
            asked_to_wait = 0.0
            try:
                response = client.post(self.endpoint.address, json=body)
            except (httpx.TransportError, httpx.DecodingError) as error:
                trouble = f"{type(error).__name__} ({self._clean(str(error))})"
            else:
                if response.status_code not in AGAIN:
                    return self._read(question, response)
                trouble = f"HTTP {response.status_code} ({self._clean(response.text)})"
                asked_to_wait = _seconds(response.headers.get("retry-after"))
            if retry < self.endpoint.retries:
                pause = min(60.0, self.endpoint.backoff * 2**retry) * random.uniform(0.5, 1)
                if self.stop.wait(max(pause, asked_to_wait)):
                    break
        raise EndpointError(
            f"{self.endpoint.address} failed {self.endpoint.retries + 1} times in a row, last with {trouble}. What was answered is kept: "
            "the same command goes on from there."
        )

    def _read(self, question: Question, response: httpx.Response) -> dict[str, Any]:
        if response.status_code in (401, 403, 404):
            raise EndpointError(
                f"{self.endpoint.address} answers HTTP {response.status_code}: {self._clean(response.text)} Check endpoint.url, "
                f"endpoint.model ({self.endpoint.model}) and the key in the environment variable {self.endpoint.key_variable}."
            )
        answer: Any = None
        usage: Any = {}
        why = f"{NO_REPLY}HTTP {response.status_code} {self._clean(response.text)}"
        if response.is_success:
            try:
                content = response.json()
                answer, usage = content["choices"][0]["message"]["content"], content.get("usage") or {}
                if not isinstance(answer, str):
                    raise TypeError(type(answer).__name__)
                answer.encode()  # half a surrogate pair is in no file that can be read again
            except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                answer, why = None, f"{NO_REPLY}not a chat completion {self._clean(response.text)}"
        rejected = why if answer is None else self.check(question, answer)
        counts = {name: _count_of(usage, theirs) for name, theirs in TOKENS.items()}
        # What is not kept is not stored either: it may be what a refusal was to avoid.
        kept = answer if rejected is None else None
        return {"question": question.id, "model": self.endpoint.model, "answer": kept, "rejected": rejected, **counts}

    def _record(self, question: Question, line: dict[str, Any]) -> None:
        with self.lock:
            self.file.write((json.dumps(line, ensure_ascii=False) + "\n").encode())
            self.file.flush()
            os.fsync(self.file.fileno())
            self._count(line)
            silent = (line["rejected"] or "").startswith(NO_REPLY)
            self.answers += not silent
            self.silent += silent
            self.show(self.totals, self.left)
            if self.endpoint.budget is not None and not silent and None in (line["tokens_in"], line["tokens_out"]):
                raise EndpointError(
                    f"{self.endpoint.address} does not say how many tokens a reply took, so no budget can be kept: leave it out."
                )
            if self.silent >= HOPELESS and not self.answers:
                raise EndpointError(f"{self.endpoint.address} gave {self.silent} replies and no answer, last: {line['rejected']}")

    def _count(self, line: dict[str, Any]) -> None:
        self.asked[line["question"]] += 1
        self.done |= {line["question"]} if line["rejected"] is None else set()
        self.totals.add(line)

    def _clean(self, text: str) -> str:
        """The beginning of a reply for a message, without the key should the endpoint repeat it."""
        return (text.replace(self.key, "***") if self.key else text).strip().replace("\n", " ")[:200]


TOKENS = {"tokens_in": "prompt_tokens", "tokens_out": "completion_tokens"}


def _key(variable: str) -> str:
    """The key, without the white space that a file's end or a paste leaves around it; empty where there is none."""
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise ValueError(f"The key in {variable} holds characters that no key has, such as a line's end. Set it again.")
    return key


def _count_of(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else None


def _seconds(text: str | None) -> float:
    try:
        return min(300.0, max(0.0, float(text or 0)))
    except ValueError:  # a date: the usual pause will do
        return 0.0


def kept_answers(questions: Sequence[Question], log: Path) -> list[tuple[Question, str]]:
    """The questions with a kept answer, in their order, each once."""
    answers = {line["question"]: line["answer"] for line in read_log(log) if line["rejected"] is None}
    return [(q, answers[q.id]) for q in {q.id: q for q in questions}.values() if q.id in answers]
