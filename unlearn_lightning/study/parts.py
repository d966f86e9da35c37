"""Where a study unlearns a part of what its forget stage trained on: do the stages of these parts fit together?

for line in parts_that_do_not_fit(study): print(line)
# requests: 3 of 128 prompts that are unlearned were never trained on by safety.
"""

from __future__ import annotations

from unlearn_lightning.data import Example
from unlearn_lightning.data.example_source import Split
from unlearn_lightning.sources.quoting import quoted
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.tree import stage_of


def parts_that_do_not_fit(study: StudyConfig) -> list[str]:
    """A line for whatever of `unlearned` the forget stage has not trained on, and for held-out prompts that it has.

    Reads the texts of the two or three stages, and nothing where a study names neither `unlearned` nor a stage in `retrained`.

    Raises:
        ValueError: the stage that `retrained` names trains on an example that is unlearned, so that its model is no retrained one.
        FileNotFoundError, HubError: a source cannot be read.
    """
    kept = study.retrained if isinstance(study.retrained, str) else None
    if study.unlearned is None and kept is None:
        return []
    part = study.unlearned or study.forget
    unlearned = _examples(study, part, "train")
    if kept is not None:
        said = {(one.prompt.strip(), one.response.strip()) for one in _examples(study, kept, "train")}
        both = [one for one in unlearned if (one.prompt.strip(), one.response.strip()) in said]
        if both:
            raise ValueError(
                f"`retrained` names the stage {kept!r}, which trains on {len(both)} of the {len(unlearned)} examples that are unlearned, "
                f"such as {quoted(both[0].prompt)}: its model would not be retrained without them. Leave them out of that stage."
            )
    if study.unlearned is None:
        return []
    trained = {one.prompt.strip() for one in _examples(study, study.forget, "train")}
    alien = sum(one.prompt.strip() not in trained for one in unlearned)
    lines = [f"{part}: {alien} of {len(unlearned)} prompts that are unlearned were never trained on by {study.forget}."] if alien else []
    held_out = _examples(study, part, "held_out")
    known = sum(one.prompt.strip() in trained for one in held_out)
    if known:
        lines.append(
            f"{part}: {known} of {len(held_out)} held-out prompts were trained on by {study.forget}, so that what is measured on them is "
            "not of new prompts. Name one `held_out_source` in both stages, or set held_out_examples to 0."
        )
    return lines


def _examples(study: StudyConfig, name: str, split: Split) -> list[Example]:
    stage = stage_of(study, name)
    return [] if split == "held_out" and not stage.held_out_examples else stage.examples(split)
