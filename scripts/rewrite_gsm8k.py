#!/usr/bin/env python3
"""GSM8K's solutions rewritten step by step by an OpenAI-compatible endpoint. Needs `pip install -e .[data]`; see docs/data.md.

    scripts/rewrite_gsm8k.py --source hub --out gsm8k_steps.jsonl --endpoint.model MODEL --endpoint.price_in 0.15 --endpoint.price_out 0.6
    unlearn fit -c configs/stages/math.yaml --data.source gsm8k_steps.jsonl --data.held_out_source gsm8k/test.jsonl ...

The same command again goes on where the last one stopped. Kept are only solutions of several lines whose last one is `#### <number>`
with the original's number.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from unlearn_lightning.data import MathStage
from unlearn_lightning.inference.answers import final_answer, same_number
from writing.command import main, write_answers
from writing.endpoint import Endpoint
from writing.replies import Question

SYSTEM = (
    "You rewrite solutions of grade-school word problems. Work through the problem step by step, one step a line, in plain sentences with "
    "the arithmetic written out. Then write a last line that holds #### and the final number, such as: #### 42. Write nothing after it."
)
# Narrower than what is read as an answer, as models learn to write what is kept here.
ANSWER_LINE = re.compile(r"####\s*[-+]?\$?[-+]?(?:\d[\d,]*(?:\.\d+)?|\.\d+)\.?")


def check(question: Question, answer: str) -> str | None:
    """Why a solution is not kept; null when it is right."""
    lines = [line.strip() for line in answer.strip().splitlines() if line.strip()]
    if not lines or not ANSWER_LINE.fullmatch(lines[-1]):
        return "does not end with #### and a number"
    if not same_number(final_answer(lines[-1]), final_answer(question.about["answer"])):
        return "has another final number"
    return "shows no steps" if len(lines) < 3 else None


def rewrite_gsm8k(source: str, out: Path, endpoint: Endpoint, rewrites: int = 1, limit: int | None = None, attempts: int = 3) -> int:
    """Asks for a step-by-step solution of every problem and writes `out`: JSON lines with `question` and `answer`.

    Args:
        source: `hub` for GSM8K's train set, `files` for $UNLEARN_DATA/gsm8k/train.jsonl, or a file with the same fields.
        out: the file to write. OUT.asked.jsonl beside it records every reply.
        endpoint: who writes.
        rewrites: solutions per problem; GSM8K has 7,473 problems, so 8,000 examples take 2.
        limit: only the first so many problems.
        attempts: how often a problem is asked whose answers are not kept.
    """
    if rewrites < 1:
        raise ValueError(f"rewrites must be at least 1, got {rewrites}.")
    stage = MathStage(source=source)
    problems = [(row, row.text("question"), stage.response(row.text("answer"))) for row in stage.source_rows()[:limit]]
    for row, _, answer in problems:
        if final_answer(answer) is None:
            raise ValueError(f"{row.where}: the answer has no line `#### <number>` to check a rewritten one by.")
    questions = [
        Question(
            ({"role": "system", "content": SYSTEM}, {"role": "user", "content": f"Problem: {problem}\n\nSolution to rewrite: {answer}"}),
            {"question": problem, "answer": answer},
            variant,
        )
        for variant in range(rewrites)
        for _, problem, answer in problems
    ]

    def line(question: Question, answer: str) -> dict[str, object]:
        return {
            "question": question.about["question"],
            "answer": "\n".join(one.strip() for one in answer.strip().splitlines() if one.strip()),
        }

    return write_answers(questions, check, line, endpoint, out, attempts)


if __name__ == "__main__":
    sys.exit(main(rewrite_gsm8k))
