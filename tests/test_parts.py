"""A study that unlearns a part of what was trained on says where the part and the rest do not fit together, and refuses what is wrong."""

import json
import re

import pytest

from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.main import main
from unlearn_lightning.sources.hub_error import HubError
from unlearn_lightning.study import parts
from unlearn_lightning.study.parts import parts_that_do_not_fit
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.tree import plan

KINDS = ["refused"] * 12 + ["answered"] * 12


def rows():
    return [{"prompt": f"Question {i}?", "response": f"{kind} {i}", "kind": kind} for i, kind in enumerate(KINDS)]


def write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def study(mixed, stages=None, held_out=0, unlearned="requests", cls="ChatStage", **changes):
    """A stage of one file; the two others are its kinds, or what `stages` says."""
    kinds = {"requests": {"leave_out": {"kind": ["answered"]}}, "harmless": {"leave_out": {"kind": ["refused"]}}}
    given = {"mixed": {}, **(kinds if stages is None else stages)}
    usual = {"source": mixed, "held_out_examples": held_out}
    return StudyConfig(
        name="parts", forget="mixed", unlearned=unlearned, **{"retrained": False, **changes},
        stages={name: {"data": {"class_path": cls, "init_args": {**usual, **args}}} for name, args in given.items()},
        objectives={"ga": {"model": {"class_path": "GradientAscent"}}},
        backbone={"scratch": {"hidden": 8, "layers": 1, "intermediate": 8, "heads": 1, "vocab_size": 300, "corpus": [mixed]}},
    )  # fmt: skip


def lines(config, folder):
    return parts_that_do_not_fit(config, plan(config, folder / "store", Resolver().resolve))


@pytest.fixture
def mixed(tmp_path):
    return write(tmp_path / "all.jsonl", rows())


def test_kinds_of_one_file_fit(mixed, tmp_path):
    assert lines(study(mixed, retrained="harmless"), tmp_path) == []


def test_an_example_that_was_not_trained_on_is_said(mixed, tmp_path):
    """Of four one has a new prompt, and one a new response to a prompt that was trained on."""
    others = [*rows()[:2], {"prompt": "New?", "response": "refused"}, {"prompt": "Question 3?", "response": "I do not know."}]
    found = lines(study(mixed, {"requests": {"source": write(tmp_path / "part.jsonl", others)}}), tmp_path)
    assert found == ["requests: 2 of 4 examples that are unlearned were never trained on by mixed, 1 of them with a prompt that was."]


def test_held_out_prompts_that_were_trained_on_are_said(mixed, tmp_path):
    """Each stage of one file holds out its own choice of prompts; with one file of held-out ones they hold out the same."""
    found = lines(study(mixed, held_out=4), tmp_path)
    assert any("of 4 held-out prompts were trained on by mixed, so that what is measured on them is not of new" in line for line in found)
    new = write(tmp_path / "new.jsonl", [{"prompt": f"Other {i}?", "response": "refused", "kind": "refused"} for i in range(4)])
    same = {"held_out_source": new}
    parts_of = {"mixed": same, "requests": {**same, "leave_out": {"kind": ["answered"]}}}
    assert lines(study(mixed, parts_of, held_out=4), tmp_path) == []
    gone = {**same, "held_out_source": str(tmp_path / "gone.jsonl")}
    assert lines(study(mixed, {"mixed": gone, "requests": {**gone, "leave_out": {"kind": ["answered"]}}}, held_out=4), tmp_path) == []


def test_plain_texts_count_as_a_whole(tmp_path):
    """They have no prompt by which they could be the same."""
    texts = {name: write(tmp_path / f"{name}.jsonl", [{"text": f"{name} {i}"} for i in range(6)]) for name in ("all", "new", "held")}
    settings = {"prompt_field": "text", "held_out_source": texts["held"]}
    stages = {"mixed": settings, "requests": {**settings, "source": texts["new"]}}
    found = lines(study(texts["all"], stages, held_out=4, cls="TextStage"), tmp_path)
    assert found == ["requests: 6 of 6 examples that are unlearned were never trained on by mixed."]


@pytest.mark.parametrize("unlearned", ["requests", None])
def test_a_retrained_model_that_learns_what_is_unlearned_is_refused(mixed, tmp_path, unlearned):
    """One example among others is said; most of them make its model no retrained one."""
    stages = {"requests": {"leave_out": {"kind": ["answered"]}}, "harmless": {"source": write(tmp_path / "h.jsonl", rows()[11:])}}
    config = study(mixed, stages, unlearned=unlearned, retrained="harmless")
    if unlearned:
        assert lines(config, tmp_path) == ["harmless: 1 of 12 examples that are unlearned are trained on by the retrained model too."]
        stages["harmless"] = {}
        config = study(mixed, stages, retrained="harmless")
    with pytest.raises(ValueError, match=rf"'harmless', which trains on {'12 of the 12' if unlearned else '13 of the 24'} examples"):
        lines(config, tmp_path)


@pytest.mark.parametrize(("first", "told"), [(12, None), (11, "1 of 12"), (0, "12 of the 12")])
def test_other_stages_may_not_teach_the_retrained_model_what_is_unlearned(mixed, tmp_path, first, told):
    """A stage of every path that holds the forget set is one of the retrained model's, too."""
    stages = {
        "mixed": {"leave_out": {"kind": ["answered"]}, "held_out_examples": 0},
        "others": {"source": write(tmp_path / "o.jsonl", rows()[first:])},
    }
    config = study(mixed, stages, unlearned=None, retrained=True, order=["others"])
    if first:
        said = [f"others: {told} examples that are unlearned are trained on by the retrained model too."] if told else []
        assert lines(config, tmp_path) == said
        return
    with pytest.raises(ValueError, match=f"The retrained model's path has the stage 'others', which trains on {told} examples"):
        lines(config, tmp_path)


@pytest.mark.parametrize(("kept", "told"), [(rows()[12:], None), (rows()[11:], "1 of the 12"), (rows(), "12 of the 12")])
def test_what_is_unlearned_may_not_be_retained(mixed, tmp_path, kept, told):
    stages = {"mixed": {"leave_out": {"kind": ["answered"]}}, "kept": {"source": write(tmp_path / "kept.jsonl", kept)}}
    config = study(mixed, stages, unlearned=None)
    config.objectives["ga"]["retain"] = {"stage": "kept"}
    said = f"{told} examples that are unlearned (mixed) are retained, too (chat)"
    if len(kept) < 24:
        assert lines(config, tmp_path) == ([f"{said}."] if told else [])
        return
    with pytest.raises(ValueError, match=re.escape(said) + ", so that a step would forget and keep the same. Name other data in `retain`."):
        lines(config, tmp_path)


def test_settings_of_all_runs_count(tmp_path):
    """The texts are read as the runs read them: with the fields that `common` names."""
    asked = write(tmp_path / "q.jsonl", [{"q": f"Question {i}?", "response": "Yes.", "kind": KINDS[i]} for i in range(24)])
    config = study(asked, retrained="harmless", common={"data": {"init_args": {"prompt_field": "q"}}})
    assert lines(config, tmp_path) == []


def test_a_source_out_of_reach_is_said(mixed, tmp_path, monkeypatch):
    def out_of_reach(*_):
        raise HubError("owner/name", "no answer")

    monkeypatch.setattr(parts, "_said", out_of_reach)
    [line] = lines(study(mixed), tmp_path)
    assert line.startswith("What is unlearned was not compared with what is trained on: ")
    assert "owner/name" in line


def test_other_studies_read_nothing(tmp_path):
    assert parts_that_do_not_fit(study(str(tmp_path / "missing.jsonl"), {"requests": {}}, unlearned=None), []) == []


def test_a_plan_and_a_study_say_it(mixed, tmp_path, capsys, monkeypatch):
    """One line in the plan and before the first run; a refused study has no run."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "part.jsonl", [{"prompt": "New?", "response": "refused"}])
    data = "{class_path: ChatStage, init_args: {source: %s, held_out_examples: 0}}"
    (tmp_path / "study.yaml").write_text(
        "name: parts\nforget: mixed\norder: []\nunlearned: requests\nretrained: false\n"
        "backbone: {scratch: {hidden: 8, layers: 1, intermediate: 8, heads: 1, vocab_size: 300, corpus: [all.jsonl]}}\n"
        f"stages:\n  mixed: {{data: {data % 'all.jsonl'}}}\n  requests: {{data: {data % 'part.jsonl'}}}\n"
        "objectives: {ga: {model: {class_path: GradientAscent}}}\n"
    )
    line = "requests: 1 of 1 examples that are unlearned were never trained on by mixed."
    assert main(["study", "study.yaml", "--plan"]) == 0
    assert line in capsys.readouterr().out
    assert main(["study", "study.yaml", "--unlearned", "null", "--retrained", "mixed"]) != 0
    assert "'mixed', which trains on 24 of the 24 examples that are unlearned" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/store/*"))
    assert main(["study", "study.yaml", "--until", "mixed", "--jobs", "1", "--common.trainer.max_steps", "1"]) == 0
    assert line in capsys.readouterr().out
