"""Asks an endpoint many questions at a time, within a budget, and records every reply before the next question starts.

replies = ask_all(questions, Endpoint(model="a-model"), Path("out.asked.jsonl"), check=lambda question, answer: None)
"""

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from writing.endpoint import Endpoint, EndpointError
from writing.replies import Question, Reply, ReplyLog, locked_log
from writing.transport import Transport

Check = Callable[[Question, str], str | None]
"""Why an answer is not kept, beginning with a few words and a colon; null to keep it."""
HOPELESS = 8
"""So many replies without an answer before the first good one, and the endpoint is not what it is taken for."""


def ask_all(questions: Sequence[Question], endpoint: Endpoint, log: Path, check: Check, attempts: int = 3) -> ReplyLog:
    """Asks every question that the log does not answer yet, and records every reply; a line on a terminal shows how it goes.

    Args:
        questions: what to ask; equal ones are asked once.
        endpoint: who answers.
        log: the file of replies, from which the same call goes on.
        check: which answers are kept.
        attempts: how often a question is asked whose answers are not kept.

    Raises:
        EndpointError: the endpoint refuses the key or the model, stays away, or gives no answers at all; or the budget is spent.
    """
    stop, lock, usable = threading.Event(), threading.Lock(), Counter[bool]()
    transport, progress = Transport(endpoint, stop), Console(stderr=True).status("asking")

    def ask(question: Question) -> None:
        try:
            while replies.is_open(question, attempts) and not stop.is_set():
                if endpoint.budget is not None and (cost := replies.cost(endpoint)) >= endpoint.budget:
                    raise EndpointError(f"The budget of ${endpoint.budget:g} is spent (${cost:.4f}). Raise endpoint.budget to go on.")
                record(question, transport.ask(question))
        except CancelledError:
            return  # Another thread's error is the one to show.
        except BaseException:
            stop.set()
            raise

    def record(question: Question, reply: Reply) -> None:
        rejected = reply.rejected if reply.answer is None else check(question, reply.answer)
        with lock:
            # The text of an answer that is not kept is not stored either, because it may be what a refusal was to avoid.
            replies.append(replace(reply, rejected=rejected, answer=reply.answer if rejected is None else None))
            if not replies.is_open(question, attempts):
                del waiting[question.id]
            progress.update(f"{replies.text(endpoint)}; {len(waiting)} questions left")
            usable[reply.answer is not None] += 1
            if endpoint.budget is not None and reply.answer is not None and None in (reply.tokens_in, reply.tokens_out):
                raise EndpointError(
                    f"{endpoint.address} does not say how many tokens a reply took, so no budget can be kept: leave it out."
                )
            if usable[False] >= HOPELESS and not usable[True]:
                raise EndpointError(f"{endpoint.address} gave {usable[False]} replies and no answer, last: {rejected}")

    with locked_log(log) as replies, progress, transport.client, ThreadPoolExecutor(endpoint.concurrency) as pool:
        waiting = {question.id: question for question in questions if replies.is_open(question, attempts)}
        try:
            for future in as_completed([pool.submit(ask, question) for question in list(waiting.values())]):
                future.result()
        finally:
            stop.set()  # After an error or the user's interrupt, what is under way is still recorded, and nothing else is asked.
    return replies
