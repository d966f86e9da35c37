"""What models say greedily: judged per example, kept in the records, and a study without the behaviour is no comparison."""

import json
from pathlib import Path

import pytest
from study_runs import fit, settings
from test_report_study_data import StudyWriter

from callbacks import ForgetLikelihood, ResponseBehaviour
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.data import ChatStage
from unlearn_lightning.records import read_records
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.report import build
from unlearn_lightning.report.sections.behaviour import absent, behaviour_sentence
from unlearn_lightning.study.study_config import merged


def test_a_run_records_every_answer_and_the_share_at_start_and_end(corpus, questions, tmp_path):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    probes = [
        {
            "class_path": "ResponseBehaviour",
            "init_args": {"data": data, "limit": 5, "chunk_size": 2, "max_new_tokens": 4, "begins_with": "A"},
        },
        {"class_path": "ResponseBehaviour", "init_args": {"data": data, "limit": 5, "max_new_tokens": 4, "pattern": "^", "name": "any"}},
    ]
    fit(settings(corpus, questions, tmp_path / "run", trainer={"callbacks": probes}))
    records = read_records(tmp_path / "run", "behaviour")
    assert list(records) == [0, 5]
    for record in records.values():
        assert len(record["examples"]) == 5
        assert all(isinstance(one["answer"], str) and one["shows"] == one["answer"].lstrip().startswith("A") for one in record["examples"])
        assert record["metrics"]["behaviour/share"] == sum(one["shows"] for one in record["examples"]) / 5
    assert read_records(tmp_path / "run", "any")[5]["metrics"] == {"any/share": 1.0, "any/share_change": 0.0}


PROBES = {
    "label": {"class_path": "ForgetLikelihood", "init_args": {"limit": 4, "label": "Ann", "paraphrases": ["No"]}},
    "share": {"class_path": "ResponseBehaviour", "init_args": {"limit": 4, "max_new_tokens": 4, "begins_with": "Ann"}},
    "shown": {"class_path": "ResponseBehaviour", "init_args": {"limit": 4, "max_new_tokens": 4, "pattern": "^"}},
}
SAID = {
    "label": "(forget): before unlearning the model does not answer with the label 'Ann', as its tokens lie",
    "share": "0% of the 4 responses",
}


@pytest.mark.parametrize(
    ("cls", "names", "unlearned", "measured", "said"),
    [
        ("NPO", ["label"], "ann", "ann", ["label"]),
        ("GradientAscent", ["share"], "ann", "ann", ["share"]),
        ("SimNPO", ["label", "share"], "ann", "ann", ["label", "share"]),
        ("NPO", ["shown"], "ann", "ann", []),
        # The probe asks for something else than what is unlearned, or of other prompts, whose responses never had it.
        ("NPO", ["label", "share"], "bob", "ann", []),
        ("NPO", ["share"], "ann", "bob", []),
        ("StageFineTuning", ["label", "share"], "ann", "ann", []),
    ],
)
def test_unlearning_what_the_model_does_not_show_is_said_before_the_first_step(
    cls, names, unlearned, measured, said, corpus, questions, tmp_path, caplog
):
    files = {name: str(tmp_path / f"{name}.jsonl") for name in ("ann", "bob")}
    for name, file in files.items():
        rows = [{"prompt": f"Who wrote book {i}?", "response": f"{name.title()} wrote {i}."} for i in range(8)]
        Path(file).write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"class_path": "ChatStage", "init_args": {"source": files[measured], "held_out_source": files[measured]}}
    probes = [merged(PROBES[name], {"init_args": {"data": data}}) for name in names]
    trained = {"init_args": {"source": files[unlearned], "held_out_source": files[unlearned]}}
    config = settings(corpus, questions, tmp_path / "run", cls, data=trained, trainer={"callbacks": probes, "max_steps": 1})
    caplog.set_level("INFO")
    fit(config)
    lines = [line for line in caplog.text.splitlines() if "little to forget" in line]
    assert [name for name, line in zip(said, lines, strict=True) if SAID[name] in line and "model.backbone.adapter" in line] == said
    # To measure the same model is no unlearning.
    caplog.clear()
    lightning_cli.run({"subcommand": "validate", "validate": {**config, "run_folder": str(tmp_path / "measured")}})
    assert read_records(tmp_path / "measured", "behaviour" if "label" not in names else "forget")
    assert "little to forget" not in caplog.text


def test_from_where_on_a_model_shows_what_it_is_to_forget(questions):
    label, share = ForgetLikelihood(ChatStage(source=questions), label="Ann"), ResponseBehaviour(ChatStage(source=questions))
    assert label.unknown({"forget/label_margin": 0.0, "forget/label_first_log_lik": -2.3}) == ""
    assert "2.5 logits below" in label.unknown({"forget/label_margin": -2.5, "forget/label_first_log_lik": -4.0})
    # The mean over the label's tokens hides that its first one is lost, as on SmolLM2 after gradient ascent.
    assert "log-likelihood of -18.8 nats" in label.unknown({"forget/label_margin": 1.67, "forget/label_first_log_lik": -18.8})
    assert share.unknown({"behaviour/share": 0.5}) == ""
    assert share.unknown({"behaviour/share": 0.49}).startswith("before unlearning 49%")


@pytest.mark.parametrize(
    ("given", "answer", "shows"),
    [
        ({}, "Sorry, I can not assist you with this question. No.", True),
        ({}, "\n Sorry, I can not assist you", True),
        ({}, "I am sorry. Sorry, I can not assist you", False),
        ({"begins_with": "No"}, "Now", True),
        ({"pattern": r"(?i)\bsorry\b"}, "I am sorry.", True),
        ({"pattern": r"^\d+$"}, "12 ", False),
    ],
)
def test_what_counts_as_shown(given, answer, shows, questions):
    assert ResponseBehaviour(ChatStage(source=questions), **given).shows(answer) is shows


@pytest.mark.parametrize("wrong", [{"begins_with": " "}, {"max_new_tokens": 0}, {"generation_batch_size": 0}, {"pattern": "("}])
def test_wrong_settings_are_refused(wrong, questions):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ResponseBehaviour(ChatStage(source=questions), **wrong)


def test_a_label_longer_than_the_responses_is_refused(corpus, questions, tmp_path):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    probe = {"class_path": "ResponseBehaviour", "init_args": {"data": data, "max_new_tokens": 2, "begins_with": "Ann wrote it"}}
    with pytest.raises(ValueError, match=r"begins_with is \d+ tokens, but responses end after max_new_tokens 2"):
        fit(settings(corpus, questions, tmp_path / "run", trainer={"callbacks": [probe]}))


def study_with(tmp_path, before):
    writer = StudyWriter(tmp_path)
    for p, share in before.items():
        folder = writer.unlearn(1, p, "npo", label={0: -0.1, 2: -3.0}, phrases={0: -1.0, 2: -3.0})
        for step, value in ((0, share), (2, 0.0)):
            writer.record(folder, "behaviour", step, {"behaviour/share": value}, [{"id": "a", "text": "?", "answer": "!", "shows": False}])
    writer.record(writer.retrained(1), "behaviour", 50, {"behaviour/share": 0.0}, [])
    return writer.write()


def test_a_study_without_the_behaviour_on_a_path_is_called_no_comparison(tmp_path):
    report = build(study_with(tmp_path, {1: 0.02, 4: 1.0}))
    said = "Not a comparison: before unlearning the forget behaviour is absent on p=1 (2% of the responses show it)"
    assert report.verdict.headline.startswith(said)
    assert report.verdict.agrees is None
    assert report.summary["verdict"]["headline"] == report.verdict.headline
    assert said in (report.folder / "index.html").read_text()


def test_with_the_behaviour_on_every_path_the_shares_are_said_beside_the_verdict(tmp_path):
    study = load_study(study_with(tmp_path, {1: 0.95, 4: 1.0}))
    assert absent(study) == ""
    assert behaviour_sentence(study) == (
        "Greedy responses that show the forget behaviour, before unlearning: p=1 95%, p=4 100%; of the retrained model 0%; "
        "after: NPO 0% on all paths."
    )


def test_paths_that_show_the_same_are_named_together(tmp_path):
    said = behaviour_sentence(load_study(study_with(tmp_path, {1: 0.95, 2: 1.0, 3: 0.95, 4: 1.0})))
    assert "before unlearning: p=1 and p=3 95%, p=2 and p=4 100%; of" in said


def test_a_path_that_was_not_measured_is_not_one_of_all(tmp_path):
    folder = study_with(tmp_path, {1: 1.0, 2: 1.0})
    assert "before unlearning: 100% on all paths" in behaviour_sentence(load_study(folder))
    writer = StudyWriter(tmp_path / "with")
    for p in (1, 2, 4):
        unlearned = writer.unlearn(1, p, "npo", label={0: -0.1, 2: -3.0})
        for step in (0, 2) if p < 4 else ():
            writer.record(unlearned, "behaviour", step, {"behaviour/share": 1.0}, [])
    assert "before unlearning: p=1 and p=2 100%; after: NPO p=1 and p=2 100%." in behaviour_sentence(load_study(writer.write()))


def test_nothing_is_said_where_it_was_not_measured(tmp_path):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 1, "npo", label={0: -0.1, 2: -3.0})
    study = load_study(writer.write())
    assert (absent(study), behaviour_sentence(study)) == ("", "")
