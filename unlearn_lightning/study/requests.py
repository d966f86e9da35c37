"""Requests that come one after the other: the forget set in k parts, unlearned in all k! orders, each shared beginning once.

for part in parts_of(stage, data, 3, store): ...       # settings of the data of each part, written to a file
orders(3)                                              # [(1,), (1, 2), (1, 2, 3), (1, 3), (1, 3, 2), (2,), ...]: 15 runs for 6 orders
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlearn_lightning.records import write_text
from unlearn_lightning.study.study_config import Settings

# What a part takes over of the forget set's settings; its prompts and responses are written out with everything else applied.
KEPT = ("system_prompt", "max_length", "skip_long_prompts", "batch_size", "micro_batch_size", "bucket_batches", "num_workers")


@dataclass(frozen=True)
class Request:
    """One run of an order: a part is unlearned after others.

    Attributes:
        order: the parts so far, counted from 1; the last one is unlearned now.
        data: settings of its data.
        probes: settings of the probes that measure each part's memory.
    """

    order: tuple[int, ...]
    data: Settings
    probes: Sequence[Settings]


def orders(count: int, before: tuple[int, ...] = ()) -> list[tuple[int, ...]]:
    """Every beginning of every order of so many parts, parents before children.

    Args:
        count: of parts.
        before: the parts that are unlearned already.
    """
    longer = [(*before, part) for part in range(1, count + 1) if part not in before]
    return [found for one in longer for found in (one, *orders(count, one))]


def parts_of(stage: Any, data: Settings, count: int, store: Path) -> list[Settings]:
    """The forget set in parts of examples that are neighbours in its source, each in a file of its own that is named by its content.

    Args:
        stage: the forget set's stage.
        data: its settings.
        count: of parts.
        store: the folder of run folders; the files go into its `requests`.

    Returns:
        Settings of a ChatStage for each part.

    Raises:
        ValueError: there are fewer examples than parts, or texts without prompts.
    """
    # Examples come shuffled, while neighbours in a file are often of one kind, such as TOFU's twenty questions about one author.
    places = {(e.prompt, e.response): i for i, e in enumerate(stage.example("", row) for row in stage.source_rows())}
    examples = sorted(stage.examples("train"), key=lambda e: places.get((e.prompt, e.response), len(places)))
    if len(examples) < count:
        raise ValueError(f"`requests` is {count}, but the forget set has {len(examples)} examples: it cannot be cut into so many parts.")
    if any(not example.prompt.strip() for example in examples):
        raise ValueError("`requests` cuts a forget set of prompts and responses into parts; this one has texts without prompts.")
    kept = {name: value for name, value in (data.get("init_args") or {}).items() if name in KEPT}
    found = []
    for part in range(count):
        first, last = (len(examples) * end // count for end in (part, part + 1))
        rows = [{"prompt": e.prompt, "response": e.response, **_second(e.alternative)} for e in examples[first:last]]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file = store / "requests" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.jsonl"
        if not file.is_file():
            write_text(file, text)
        second = {"alternative_field": "alternative"} if "alternative" in rows[0] else {}
        found.append({"class_path": "ChatStage", "init_args": {**kept, **second, "source": str(file), "held_out_examples": 0}})
    return found


def _second(alternative: str | None) -> dict[str, str]:
    return {} if alternative is None else {"alternative": alternative}


def memory_probes(parts: Sequence[Settings]) -> list[Settings]:
    """A probe for each part, `request1`, `request2`, ..., which measures how likely its responses are still."""
    return [
        {"class_path": "ResponseLikelihood", "init_args": {"name": f"request{i}", "data": part, "split": "train", "every_n_steps": 0}}
        for i, part in enumerate(parts, 1)
    ]


def each_request(parts: Sequence[Settings]) -> list[Request]:
    """Every run of every order, parents before children."""
    probes = memory_probes(parts)
    return [Request(order, parts[order[-1] - 1], probes) for order in orders(len(parts))]
