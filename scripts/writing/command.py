"""What the data-writing scripts share: the command line, the output file, and errors as one line.

write_answers(questions, check, line, endpoint, Path("refusals.jsonl"), attempts=3)     # the exit status
"""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse

from unlearn_lightning.records import write_text
from writing.asking import Check, ask_all
from writing.endpoint import Endpoint, EndpointError
from writing.replies import Question, read_log

Line = Callable[[Question, str], dict[str, Any]]
"""A kept answer as a row of the output file."""


def main(script: Callable[..., int]) -> int:
    """The script's function as a command line; bad input ends with one line."""
    try:
        return int(jsonargparse.auto_cli(script, as_positional=False))
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 2


def write_answers(questions: Sequence[Question], check: Check, line: Line, endpoint: Endpoint, out: Path, attempts: int) -> int:
    """Asks what is open (see `ask_all`), writes `out` from all kept answers so far, and says what it cost.

    `out` is written whole, also when the endpoint gives up or the user stops it; OUT.asked.jsonl holds every reply.

    Args:
        questions: all questions, answered already or not.
        check: says why an answer is not kept; null when it is right.
        line: makes a line of the output from a question and its answer.
        endpoint: where the questions are sent.
        out: the output file; its log lies beside it.
        attempts: the number of times that a question is asked until an answer is kept.

    Returns:
        The exit status: 0 when every question has its answer, 1 when something stopped it, 3 when answers are missing.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}.")
    log, stopped = out.with_name(f"{out.name}.asked.jsonl"), ""
    try:
        replies = ask_all(questions, endpoint, log, check, attempts)
    except (EndpointError, OSError) as error:
        stopped = str(error)
    except KeyboardInterrupt:
        stopped = "Stopped. The same command goes on from here."
    answers = {reply.question: reply.answer for reply in read_log(log) if reply.answer is not None}
    asked = {question.id: question for question in questions}
    rows = [line(question, answers[name]) for name, question in asked.items() if name in answers]
    if rows:
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    print(f"{out}: {len(rows)} of {len(asked)} questions answered.")
    if stopped:
        print(stopped, file=sys.stderr)
        return 1
    print(replies.text(endpoint))
    for why, count in replies.rejected.most_common():
        print(f"  {count} answers not kept: {why}")
    return 0 if len(rows) == len(asked) else 3
