"""A study that unlearns a part of what was trained on says where the part and the rest do not fit together, and refuses what is wrong."""

import json

import pytest

from unlearn_lightning.main import main
from unlearn_lightning.study.parts import parts_that_do_not_fit
from unlearn_lightning.study.study_config import StudyConfig

KINDS = ["refused"] * 12 + ["answered"] * 12


def rows():
    return [{"prompt": f"Question {i}?", "response": f"{kind} {i}", "kind": kind} for i, kind in enumerate(KINDS)]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def study(mixed, parts=None, held_out=0, unlearned="requests", **changes):
    """A stage of one file; the two others are its kinds, or what `parts` says."""
    stages = {"mixed": {"source": mixed}}
    where = {"held_out_examples": held_out}
    stages |= parts or {name: {"source": mixed, "leave_out": {"kind": [kind]}} for name, kind in
                        (("requests", "answered"), ("harmless", "refused"))}  # fmt: skip
    return StudyConfig(
        name="parts", forget="mixed", order=(), unlearned=unlearned,
        stages={name: {"data": {"class_path": "ChatStage", "init_args": {**where, **args}}} for name, args in stages.items()},
        objectives={"ga": {"model": {"class_path": "GradientAscent"}}}, backbone={"scratch": {}}, **changes,
    )  # fmt: skip


def test_kinds_of_one_file_fit(tmp_path):
    assert parts_that_do_not_fit(study(write(tmp_path / "all.jsonl", rows()), retrained="harmless")) == []


def test_a_part_that_was_not_trained_on_is_said(tmp_path):
    mixed = write(tmp_path / "all.jsonl", rows())
    others = write(tmp_path / "part.jsonl", [*rows()[:3], {"prompt": "New?", "response": "refused"}])
    assert parts_that_do_not_fit(study(mixed, {"requests": {"source": others}})) == [
        "requests: 1 of 4 prompts that are unlearned were never trained on by mixed."
    ]


def test_held_out_prompts_that_were_trained_on_are_said(tmp_path):
    """Each stage of one file holds out its own choice of prompts; with one file of held-out ones they hold out the same."""
    mixed = write(tmp_path / "all.jsonl", rows())
    lines = parts_that_do_not_fit(study(mixed, held_out=4))
    assert any(
        "of 4 held-out prompts were trained on by mixed, so that what is measured on them is not of new prompts" in line for line in lines
    )
    new = write(tmp_path / "new.jsonl", [{"prompt": f"Other {i}?", "response": "refused", "kind": "refused"} for i in range(4)])
    same = {"source": mixed, "held_out_source": new}
    parts = {"mixed": same, "requests": {**same, "leave_out": {"kind": ["answered"]}}}
    assert parts_that_do_not_fit(study(mixed, parts, held_out=4)) == []


@pytest.mark.parametrize("unlearned", ["requests", None])
def test_a_retrained_model_that_learns_what_is_unlearned_is_refused(tmp_path, unlearned):
    mixed = write(tmp_path / "all.jsonl", rows())
    parts = {
        "requests": {"source": mixed, "leave_out": {"kind": ["answered"]}},
        "harmless": {"source": write(tmp_path / "h.jsonl", rows()[11:])},
    }
    count = r"1 of the 12" if unlearned else r"13 of the 24"
    with pytest.raises(ValueError, match=rf"'harmless', which trains on {count} examples that are unlearned, such as"):
        parts_that_do_not_fit(study(mixed, parts, unlearned=unlearned, retrained="harmless"))


def test_other_studies_read_nothing(tmp_path):
    assert parts_that_do_not_fit(study(str(tmp_path / "missing.jsonl"), {"requests": {"source": "missing"}}, unlearned=None)) == []


def test_a_plan_and_a_study_say_it(tmp_path, capsys, monkeypatch):
    """One line in the plan, and no run where the retrained model would learn what is unlearned."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "all.jsonl", rows())
    write(tmp_path / "part.jsonl", [{"prompt": "New?", "response": "refused"}])
    data = "{class_path: ChatStage, init_args: {source: %s, held_out_examples: 0}}"
    (tmp_path / "study.yaml").write_text(
        "name: parts\nforget: mixed\norder: []\nunlearned: requests\nretrained: false\n"
        "backbone: {scratch: {hidden: 8, layers: 1, intermediate: 8, heads: 1, vocab_size: 300}}\n"
        f"stages:\n  mixed: {{data: {data % 'all.jsonl'}}}\n  requests: {{data: {data % 'part.jsonl'}}}\n"
        "objectives: {ga: {model: {class_path: GradientAscent}}}\n"
    )
    assert main(["study", "study.yaml", "--plan"]) == 0
    assert "requests: 1 of 1 prompts that are unlearned were never trained on by mixed." in capsys.readouterr().out
    assert main(["study", "study.yaml", "--unlearned", "null", "--retrained", "mixed"]) != 0
    assert "'mixed', which trains on 24 of the 24 examples that are unlearned" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/store/*"))
