"""Do the data of a study's runs fit together: what is unlearned, what its forget stage and the retrained model train on, what is retained?

for line in parts_that_do_not_fit(study, plan(study, store, resolve)): print(line)
# requests: 3 of 128 examples that are unlearned were never trained on by safety, 1 of them with a prompt that was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
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
    """A line for examples that are unlearned and retained, or known to the retrained model, and for those that were never trained on.

    Reads the texts of the forget stage, of the retrained models' stages and of what is retained; nothing where all runs are finished.

    Args:
        study: whose stages are compared.
        runs: the planned ones, whose data are read.

    Raises:
        ValueError: the retrained model trains on most of what is unlearned, or most of it is retained.
        FileNotFoundError: a file cannot be read.
    """
    first = next((run for run in runs if run.kind == "unlearn"), None)
    if first is None or all(is_finished(run.folder) for run in runs):
        return []
    try:
        part = _data(first.config["data"])
        name, unlearned = study.unlearned or study.forget, _said(part, "train")
        lines = [*_known_to_the_retrained(study, runs, unlearned), *_retained(name, runs, unlearned)]
        return [*lines, *(_never_trained_on(name, part, unlearned, study.forget, runs) if study.unlearned is not None else [])]
    except HubError as error:
        # A plan out of the Hub's reach names all data that it could not read.
        also = study.unlearned is not None or isinstance(study.retrained, str)
        return [f"What is unlearned was not compared with what is trained on: {first_line(error)}"] if also else []


def _known_to_the_retrained(study: StudyConfig, runs: Sequence[Run], unlearned: Sequence[_Said]) -> Iterator[str]:
    """Stages of the retrained models that train on what is unlearned."""
    for stage in dict.fromkeys(stage for path in study.retrained_paths() for stage in path):
        run = _stage_run(runs, stage)
        both = _shared(unlearned, _data(run.config["data"])) if run is not None else 0
        if 2 * both > len(unlearned):
            which = (
                f"`retrained` names the stage {stage!r}"
                if stage == study.retrained
                else f"The retrained model's path has the stage {stage!r}"
            )
            raise ValueError(
                f"{which}, which trains on {both} of the {len(unlearned)} examples that are unlearned: its "
                "model would not be retrained without them. Leave them out of that stage."
            )
        if both:
            yield f"{stage}: {both} of {len(unlearned)} examples that are unlearned are trained on by the retrained model too."


def _retained(name: str, runs: Sequence[Run], unlearned: Sequence[_Said]) -> Iterator[str]:
    """Retain data that hold what is unlearned, each once."""
    terms = [run.config["model"]["init_args"].get("retain") for run in runs if run.kind == "unlearn"]
    kept = {json.dumps(term["data"], sort_keys=True): term["data"] for term in terms if term}
    for settings in kept.values():
        data = _data(settings)
        if both := _shared(unlearned, data):
            told = f"{both} of the {len(unlearned)} examples that are unlearned ({name}) are retained, too ({data.stage_name})"
            if 2 * both > len(unlearned):
                raise ValueError(f"{told}, so that a step would forget and keep the same. Name other data in `retain`.")
            yield f"{told}."


def _never_trained_on(name: str, part: Any, unlearned: Sequence[_Said], forget: str, runs: Sequence[Run]) -> Iterator[str]:
    """What is unlearned without having been trained on, and what is held out and was."""
    stage = _stage_run(runs, forget)
    assert stage is not None
    trained = _said(_data(stage.config["data"]), "train")
    questions, pairs = {one.question for one in trained}, {one.pair for one in trained}
    new = [one for one in unlearned if one.pair not in pairs]
    if new:
        asked = sum(one.question in questions for one in new)
        also = f", {asked} of them with a prompt that was" if asked else ""
        yield f"{name}: {len(new)} of {len(unlearned)} examples that are unlearned were never trained on by {forget}{also}."
    held_out = _held_out(part)
    seen = sum(one.question in questions for one in held_out)
    if seen:
        yield (
            f"{name}: {seen} of {len(held_out)} held-out prompts were trained on by {forget}, so that what is measured on them is "
            "not of new prompts. Name one `held_out_source` in both stages, or set held_out_examples to 0 in both."
        )


def _shared(unlearned: Sequence[_Said], data: Any) -> int:
    pairs = {one.pair for one in _said(data, "train")}
    return sum(one.pair in pairs for one in unlearned)


def _stage_run(runs: Sequence[Run], stage: str) -> Run | None:
    return next((run for run in runs if run.kind == "stage" and run.tags["path"][-1:] == [stage]), None)


def _data(settings: Mapping[str, Any]) -> Any:
    """The `StageData` of a run's settings, which have all that the study's layers give it."""
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
