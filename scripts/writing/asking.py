"""What the data-writing scripts share around `endpoint.ask_all`: progress, the output file, and errors as one line.

run(Job(questions, check, line), endpoint, Path("refusals.jsonl"), attempts=3)          # exit status
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonargparse
from rich.console import Console

from unlearn_lightning.records import write_text
from writing.endpoint import Endpoint, EndpointError, Question, Totals, ask_all, kept_answers


def main(script: Callable[..., int]) -> int:
    """The script's function as a command line; bad input ends with one line."""
    try:
        status: int = jsonargparse.auto_cli(script, as_positional=False)
        return status
    except (ValueError, OSError) as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        return 2


@dataclass(frozen=True)
class Job:
    """What to ask, what to keep, and how a kept answer is written."""

    questions: Sequence[Question]
    check: Callable[[Question, str], str | None]
    line: Callable[[Question, str], dict[str, Any]]


def run(job: Job, endpoint: Endpoint, out: Path, attempts: int) -> int:
    """Asks what is open, writes `out` from all kept answers so far, and says what it cost; 0 when every question has its answer.

    `out` is written whole, also when the endpoint gives up or the user stops it; OUT.asked.jsonl holds every reply.
    """
    if attempts < 1:
        raise ValueError(f"attempts must be at least 1, got {attempts}.")
    log, console = out.with_name(f"{out.name}.asked.jsonl"), Console(stderr=True)
    stopped = ""
    with console.status("asking") as status:

        def show(totals: Totals, left: int) -> None:
            status.update(f"{totals.text(endpoint)}; {left} questions left")

        try:
            totals = ask_all(job.questions, endpoint, log, job.check, attempts, show)
        except (EndpointError, OSError) as error:
            stopped = str(error)
        except KeyboardInterrupt:
            stopped = "Stopped. The same command goes on from here."
    kept = kept_answers(job.questions, log)
    if kept:
        write_text(out, "".join(json.dumps(job.line(q, answer), ensure_ascii=False) + "\n" for q, answer in kept))
    total = len({question.id for question in job.questions})
    print(f"{out}: {len(kept)} of {total} questions answered.")
    if stopped:
        print(stopped, file=sys.stderr)
        return 1
    print(totals.text(endpoint))
    for why, count in totals.rejected.most_common():
        print(f"  {count} answers not kept: {why}")
    return 0 if len(kept) == total else 3
