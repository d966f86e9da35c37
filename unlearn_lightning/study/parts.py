"""Where a study unlearns a part of what its forget stage trained on: do the data of its runs fit together?

for line in parts_that_do_not_fit(study, plan(study, store, resolve)): print(line)
# requests: 3 of 128 examples that are unlearned were never trained on by safety, 1 of them with a prompt that was.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from unlearn_lightning.data.example_source import Split
from unlearn_lightning.records import is_finished
from unlearn_lightning.sources.hub_error import HubError
from unlearn_lightning.sources.quoting import first_line
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.tree import stage_class


class _Said(NamedTuple):
    """What an example says, as digests: the question, or the whole of a plain text, and question and response together."""

    question: bytes
    pair: bytes


def parts_that_do_not_fit(study: StudyConfig, runs: Sequence[Run]) -> list[str]:
    """A line for examples that are unlearned without having been trained on, and for held-out ones that were trained on.

    Reads the texts of two or three stages, and nothing where the study names neither `unlearned` nor a stage in `retrained`, or where all
    runs are finished.

    Args:
        study: whose stages are compared.
        runs: the planned ones, whose data are read.

    Raises:
        ValueError: the stage that `retrained` names trains on most of what is unlearned, so that its model is no retrained one.
        FileNotFoundError: a file cannot be read.
    """
    kept = study.retrained if isinstance(study.retrained, str) else None
    if (study.unlearned is None and kept is None) or all(is_finished(run.folder) for run in runs):
        return []
    try:
        return _compared(study, runs, kept)
    except HubError as error:
        return [f"What is unlearned was not compared with what is trained on: {first_line(error)}"]


def _compared(study: StudyConfig, runs: Sequence[Run], kept: str | None) -> list[str]:
    first = next((run for run in runs if run.kind == "unlearn"), None)
    if first is None:
        return []
    part = _data(first)
    name, unlearned, lines = study.unlearned or study.forget, _said(part, "train"), list[str]()
    if kept is not None:
        retained = {one.pair for one in _said(_data(_stage_run(runs, kept)), "train")}
        both = sum(one.pair in retained for one in unlearned)
        if 2 * both > len(unlearned):
            raise ValueError(
                f"`retrained` names the stage {kept!r}, which trains on {both} of the {len(unlearned)} examples that are unlearned: its "
                "model would not be retrained without them. Leave them out of that stage."
            )
        lines += (
            [f"{kept}: {both} of {len(unlearned)} examples that are unlearned are trained on by the retrained model too."] if both else []
        )
    if study.unlearned is None:
        return lines
    trained = _said(_data(_stage_run(runs, study.forget)), "train")
    questions, pairs = {one.question for one in trained}, {one.pair for one in trained}
    new = [one for one in unlearned if one.pair not in pairs]
    if new:
        asked = sum(one.question in questions for one in new)
        also = f", {asked} of them with a prompt that was" if asked else ""
        lines.append(f"{name}: {len(new)} of {len(unlearned)} examples that are unlearned were never trained on by {study.forget}{also}.")
    held_out = _held_out(part)
    seen = sum(one.question in questions for one in held_out)
    if seen:
        lines.append(
            f"{name}: {seen} of {len(held_out)} held-out prompts were trained on by {study.forget}, so that what is measured on them is "
            "not of new prompts. Name one `held_out_source` in both stages, or set held_out_examples to 0 in both."
        )
    return lines


def _stage_run(runs: Sequence[Run], stage: str) -> Run:
    return next(run for run in runs if run.kind == "stage" and run.tags["path"][-1:] == [stage])


def _data(run: Run) -> Any:
    """The run's `StageData`, with all settings that the study's layers give it."""
    settings = run.config["data"]
    return stage_class(settings["class_path"])(**(settings.get("init_args") or {}))


def _held_out(stage: Any) -> list[_Said]:
    """What is held out; nothing where it cannot be read, which a run that measures nothing on it does not mind."""
    try:
        return _said(stage, "held_out") if stage.held_out_examples else []
    except (OSError, ValueError):
        return []


def _said(stage: Any, split: Split) -> list[_Said]:
    def digest(text: str) -> bytes:
        return hashlib.blake2b(text.encode(), digest_size=16).digest()

    texts = ((one.prompt.strip(), one.response.strip()) for one in stage.each_example(split))
    return [_Said(digest(prompt or response), digest(f"{prompt}\0{response}")) for prompt, response in texts]
