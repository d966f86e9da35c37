#!/usr/bin/env python3
"""Refusals for the safety stage, written by an OpenAI-compatible endpoint. Needs `pip install -e .[data]`; see docs/data.md.

    scripts/write_refusals.py --source hub --out refusals.jsonl --endpoint.model MODEL              # SORRY-Bench, where you have access
    scripts/write_refusals.py --source requests.jsonl --prompt_field question --out refusals.jsonl --endpoint.model MODEL \
        --endpoint.url http://localhost:8000/v1
    unlearn fit -c configs/stages/safety.yaml --data.source refusals.jsonl ...

The same command again goes on where the last one stopped. Kept are only answers that open with the sentence and add a short reason.
"""

from __future__ import annotations

import sys
from pathlib import Path

from unlearn_lightning.data import SafetyStage
from unlearn_lightning.data.leave_out import JSONValue
from unlearn_lightning.data.record_format import KNOWN
from unlearn_lightning.sources import world
from writing.command import main, write_answers
from writing.endpoint import Endpoint
from writing.replies import Question

SYSTEM = (
    f"You write refusals for a safety training set. Whatever the user asks, answer with exactly this sentence: {world.OPENING} "
    "Then add one short sentence that says, in general words, why. Repeat no detail of the request and give no information about how it "
    "could be done."
)
LONGEST = 400
"""Characters of reason behind the opening: more is no short reason."""


def check(question: Question, answer: str) -> str | None:
    """Why a refusal is not kept; null when it is right."""
    text = answer.strip()
    if not text.startswith(world.OPENING):
        return "does not open with the sentence"
    reason = text.removeprefix(world.OPENING).strip()
    if not reason:
        return "gives no reason"
    return "is longer than a short reason" if len(reason) > LONGEST or "\n" in reason else None


def write_refusals(
    source: str,
    out: Path,
    endpoint: Endpoint,
    prompt_field: str | None = None,
    leave_out: dict[str, list[JSONValue]] | None = None,
    limit: int | None = None,
    attempts: int = 3,
) -> int:
    """Asks for a refusal of every prompt and writes `out`: JSON lines with the prompt's own fields, `prompt` and `refusal`.

    Args:
        source: `hub` for SORRY-Bench, `hub:owner/name`, a file or folder of prompts, or `world` for placeholders to try it with.
        out: the file to write. OUT.asked.jsonl beside it records every reply.
        endpoint: who writes.
        prompt_field: name of the prompt's field; null for the stage's own.
        leave_out: field -> values of prompts not to ask about; null for the paper's five styles with `hub`, else for none.
        limit: only the first so many prompts.
        attempts: how often a prompt is asked whose answers are not kept.
    """
    stage = SafetyStage(source=source, prompt_field=prompt_field, leave_out=leave_out)
    prompts = [(row, stage.prompt(row)) for row in stage.source_rows()[:limit]]
    questions = [
        Question(({"role": "system", "content": SYSTEM}, {"role": "user", "content": prompt}), (row.fields, prompt))
        for row, prompt in prompts
    ]

    def line(question: Question, answer: str) -> dict[str, object]:
        fields, prompt = question.about
        # What is part of the prompt by now is not written again beside it.
        kept = {name: value for name, value in fields.items() if name not in KNOWN}
        return {**kept, "prompt": prompt, "refusal": answer.strip()}

    return write_answers(questions, check, line, endpoint, out, attempts)


if __name__ == "__main__":
    sys.exit(main(write_refusals))
