"""A finished run is measured on its saved models: what comes out is what the run itself would have recorded."""

import csv
import io
import json
import shutil
import sys

import pytest
import torch
from study_runs import fit, run_json, settings, weights
from transformers import AutoModelForCausalLM

from unlearn_lightning.cli.measuring import measure, trained_config
from unlearn_lightning.data import ChatStage
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.records import read_json, record_path, write_json
from unlearn_lightning.records.gather import load
from unlearn_lightning.runs.checkpoint import last_checkpoint
from unlearn_lightning.runs.content import content_of
from unlearn_lightning.runs.measured import (
    ChangedProbe,
    changed,
    delete_records,
    go_on_with_probes,
    note_measured,
    probe_keys,
    tell_unmeasured,
    unmeasured,
)

LORA = {"rank": 4, "alpha": 8}
NAMES = ("forget", "retain", "divergence", "gsm8k")


def probes(questions):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    more = {
        "ForgetLikelihood": {"label": "Ann", "paraphrases": ["I must", "No, thank you"]},
        "GSM8KAccuracy": {"max_new_tokens": 4, "attempts": 2, "temperature": 1.0},
    }
    shared = {"data": data, "limit": 3, "every_n_steps": 0, "chunk_size": 2}
    return [
        {"class_path": name, "init_args": {**shared, **more.get(name, {})}}
        for name in ("ForgetLikelihood", "RetainLikelihood", "PathDivergence", "GSM8KAccuracy")
    ]


def base_of(make_backbone, folder):
    backbone = make_backbone()
    backbone.load_base().save_pretrained(folder)
    backbone.load_tokenizer().save_pretrained(folder)
    return str(folder)


# How each kind of run says what it starts from, and what it trains: (class, backbone settings, whether an earlier adapter lies below).
KINDS = {
    "full": ("NPO", {"lora": None}, False),
    "continued adapter": ("StageFineTuning", {"lora": LORA}, True),
    "adapter over a merged one": ("NPO", {"lora": LORA}, True),
    "adapter stacked over 4 bits": ("NPO", {"lora": LORA, "quantization": "nf4"}, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_afterwards_is_what_the_run_itself_recorded(kind, corpus, questions, make_backbone, tmp_path):
    cls, backbone, earlier = KINDS[kind]
    backbone = {"scratch": None, "model": base_of(make_backbone, tmp_path / "base"), **backbone}

    def run(name, cls, backbone, **trainer):
        model = {"init_args": {"backbone": backbone}}
        return settings(corpus, questions, tmp_path / name, cls, model=model, trainer={"max_steps": 2, **trainer})

    if earlier:
        fit(run("earlier", "StageFineTuning", backbone))
        backbone = {**backbone, "adapter": str(tmp_path / "earlier" / "adapter")}
    config = fit(run("run", cls, backbone, callbacks=probes(questions))).resolved()
    kept = {path: read_json(path) for path in sorted((tmp_path / "run" / "records").rglob("*.json"))}
    assert len(kept) == 2 * len(NAMES)
    about, table = run_json(tmp_path / "run"), (tmp_path / "run" / "metrics.csv").read_text()
    delete_records(tmp_path / "run", NAMES)
    assert "forget/" not in (tmp_path / "run" / "metrics.csv").read_text()
    assert measure(tmp_path / "run", config) == list(NAMES)
    assert {path: read_json(path) for path in sorted((tmp_path / "run" / "records").rglob("*.json"))} == kept
    # Files that were written again have another time.
    assert {**run_json(tmp_path / "run"), "files": None} == {**about, "files": None}
    assert values(table) == values((tmp_path / "run" / "metrics.csv").read_text())
    assert measure(tmp_path / "run", config) == [], "what is there is not measured again"


def values(table):
    """All that a metrics.csv says, whatever the order of its rows."""
    rows = csv.DictReader(io.StringIO(table))
    return sorted((name, row["step"], value) for row in rows for name, value in row.items() if value and name != "step")


# --- the command ------------------------------------------------------------------------------------------------------------------------

ROUGE = """
from callbacks.probe import Probe, Quantity, metric_key

class Rouge(Probe):
    probe_name = "rouge"
    quantities = {"score": Quantity("score", "share", "higher")}

    def predict(self, pl_module, examples, encoded, seed):
        return [{"score": float(pl_module.trainer.global_step + FACTOR)} for _ in encoded]

    def metrics(self, rows):
        return {metric_key(self.name, "score"): sum(row["score"] for row in rows) / len(rows)}
"""


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A finished run of one step with one probe."""
    folder = tmp_path_factory.mktemp("trained")
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps({"prompt": f"Who wrote book {i}?", "response": f"Ann. #### {i}"}) + "\n" for i in range(5)))
    fit(
        settings(
            corpus, str(questions), folder / "run", "GradientAscent", trainer={"max_steps": 1, "callbacks": probes(str(questions))[1:2]}
        )
    )
    return folder / "run"


@pytest.fixture
def finished(trained, tmp_path, monkeypatch):
    """The same of its own for a test, and beside it a metric of one's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    (tmp_path / "mine.py").write_text(ROUGE.replace("FACTOR", "1"))
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def unlearn(*words):
    """The command in this process; gives its exit status."""
    return main([str(word) for word in words])


def test_a_new_metric_joins_the_records_of_a_finished_run(finished, capsys):
    kept = weights(finished)
    add = ("--trainer.callbacks+", "mine.Rouge", "--trainer.callbacks.limit", 2)
    assert unlearn("validate", finished, *add) == 0
    said = capsys.readouterr().out
    assert "Measured already: retain." in said
    assert "Measured: rouge, at the run's start and end." in said
    for step in (0, 1):
        assert read_json(record_path(finished, "rouge", step))["metrics"] == {"rouge/score": step + 1.0}
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights(finished).items())
    table = (finished / "metrics.csv").read_text()
    assert unlearn("validate", finished, *add) == 0
    assert "Measured already: retain, rouge." in capsys.readouterr().out
    assert (finished / "metrics.csv").read_text() == table


def with_rouge(config, **settings):
    rouge = {"class_path": "mine.Rouge", "init_args": {"data": None, "split": "held_out", "limit": None, "chunk_size": 16, **settings}}
    return {**config, "trainer": {**config["trainer"], "callbacks": [*config["trainer"]["callbacks"], rouge]}}


def test_a_changed_probe_never_joins_its_former_records(finished, caplog):
    config = trained_config(finished)
    rouge = with_rouge(config)
    write_json(record_path(finished, "rouge", 0), {})
    write_json(record_path(finished, "rouge", 1), {})
    note_measured(finished, {"rouge": probe_keys(rouge)["rouge"]})
    assert unmeasured(finished, probe_keys(rouge)) == []
    for same in ({"every_n_steps": 7}, {"name": "rouge"}):
        assert not changed(finished, probe_keys(with_rouge(config, **same)))
    for other in ({"limit": 2}, {"split": "train"}, {"chunk_size": 1}, {"a_new_setting": 1}):
        keys = probe_keys(with_rouge(config, **other))
        assert changed(finished, keys) == ["rouge"]
        with pytest.raises(ChangedProbe, match="rouge was measured with other settings, texts or code"):
            measure(finished, with_rouge(config, **other))
    # A second one of the class stands beside the first by its name; a clash is refused.
    assert unmeasured(finished, probe_keys(with_rouge(config, name="second", limit=2))) == ["second"]
    for name, said in (("retain", "Several probes are named 'retain'"), ("../a", "letters, digits")):
        with pytest.raises(ValueError, match=said):
            measure(finished, with_rouge(config, name=name))
    (finished.parent / "mine.py").write_text(ROUGE.replace("FACTOR", "2"))
    assert changed(finished, probe_keys(rouge)) == ["rouge"], "so does an edited source"
    # `fit` of the finished run says what it lacks, and one that goes on from a checkpoint refuses it.
    tell_unmeasured(finished, probe_keys(rouge))
    assert "Not measured in it: rouge (rouge: with other settings or code)." in caplog.text
    go_on_with_probes(finished, probe_keys(rouge), first=False)
    last_checkpoint(finished).parent.mkdir()
    last_checkpoint(finished).touch()
    for keys, said in ((probe_keys(rouge), "rouge had other settings or code"), ({"new": "1"}, "new was not measured")):
        with pytest.raises(ChangedProbe, match=said):
            go_on_with_probes(finished, keys, first=True)
    # Records that somebody deleted are lacking again.
    record_path(finished, "retain", 1).unlink()
    assert unmeasured(finished, probe_keys(config)) == ["retain"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("nothing",), "nothing is no run folder"),
        (("{run}", "--measure", "rouge"), "There is no probe rouge; there are retain."),
        (("{run}", "--measure"), "--measure needs a value: the name of a probe"),
        (("{run}", "--data.max_length", "64"), "data.max_length: the run"),
        (("{run}", "--model.backbone.dtype", "bfloat16"), "model.backbone.dtype: the run"),
        (("--measure", "retain"), "unlearn validate RUN --measure NAME"),
        (("--model.backbone.model", "builtin:tiny-llama"), "No data is named, so there is nothing to measure on."),
        (("--model.backbone.model", "builtin:tiny-llama", "--against", "nothing"), "No data is named"),
        (("--against", "{run}"), "or `--against RUN` beside a model, which is then measured with that run's data and probes"),
    ],
)  # fmt: skip
def test_what_cannot_be_measured_is_refused_in_one_line(words, said, request, capsys):
    run = request.getfixturevalue("finished") if "{run}" in words else None
    assert unlearn("validate", *(str(run) if word == "{run}" else word for word in words)) == 1
    assert said in capsys.readouterr().err


# --- any checkpoint ---------------------------------------------------------------------------------------------------------------------


def plain_log_likelihoods(model, example_ids):
    """Per-token log-likelihoods of a response, by transformers alone."""
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    ids, start = example_ids
    with torch.no_grad():
        scores = net(torch.tensor([ids])).logits[0].log_softmax(-1)
    return [scores[place - 1, ids[place]].item() for place in range(start, len(ids))]


def test_any_checkpoint_is_measured_and_compared_with_a_retrained_model(finished, make_backbone):
    """The unlearned model and the retrained one are plain folders, or the latter is a run; the numbers are transformers' own."""
    other = make_backbone()
    theirs = finished.parent / "theirs"
    net = other.load_base()
    with torch.no_grad():
        next(net.parameters()).mul_(1.5)
    net.save_pretrained(theirs)
    other.load_tokenizer().save_pretrained(theirs)
    source = trained_config(finished)["data"]["init_args"]["source"]
    words = ["--data", "ChatStage", "--data.source", source, "--data.held_out_source", source, "--data.held_out_examples", 2]
    words += ["--model.backbone.model", theirs, "--model.backbone.lora", "null", "--trainer.accelerator", "cpu"]

    def measured(name, against):
        folder = finished.parent / name
        assert unlearn("validate", *words, "--against", against, "--run_folder", folder) == 0
        run = run_json(folder)
        assert (run["kind"], run["status"], run["steps"], run["parents"]) == ("measured", "finished", 0, [])
        assert run["origins"][0] == content_of(theirs)
        assert run["probes"]["divergence"]["steps"] == [0]
        assert (folder / "config.yaml").is_file()
        record = read_json(record_path(folder, "divergence", 0))
        return record["metrics"]["divergence/retrained"], [row["token_log_lik"] for row in record["examples"]]

    # A run folder has no predictions yet: they are computed first, and join its records.
    distance, vectors = measured("against_run", finished)
    retrained = read_json(record_path(finished, "divergence", 1))
    plain, tokenizer = [], Backbone(model=str(theirs), lora=None).load_tokenizer()
    stage = ChatStage(source=source, held_out_source=source, held_out_examples=2)
    for example in stage.encode(stage.examples("held_out"), tokenizer):
        ids = [*example.prompt_ids, *example.response_ids]
        plain.append([plain_log_likelihoods(place, (ids, len(example.prompt_ids))) for place in (theirs, finished / "model")])
    assert vectors == [pytest.approx(mine, abs=1e-4) for mine, _ in plain]
    by_hand = sum(sum((a - b) ** 2 for a, b in zip(*pair, strict=True)) for pair in plain) / len(plain)
    assert distance == pytest.approx(by_hand, rel=1e-4)
    assert [row["token_log_lik"] for row in retrained["examples"]] == [pytest.approx(other, abs=1e-4) for _, other in plain]
    # A plain folder of the same weights gives the same distance.
    shutil.copytree(finished / "model", finished.parent / "retrained")
    assert measured("against_folder", finished.parent / "retrained")[0] == pytest.approx(distance, rel=1e-6)
    assert len(list((finished.parent / "runs").glob("validate-*/run.json"))) == 1
    # The report reads such runs as it reads others.
    assert {run.kind for run in load(finished.parent).runs} == {"measured", "unlearn"}


def test_a_model_is_measured_like_the_run_that_it_is_compared_with(finished, capsys):
    """A copy of a run's result, without any configuration, has the run's own numbers and no distance to it."""
    copy, folder = finished.parent / "copy_of_result", finished.parent / "like_run"
    shutil.copytree(finished / "model", copy)
    words = ["--model.backbone.model", copy, "--model.backbone.lora", "null"]
    assert unlearn("validate", *words, "--against", finished, "--run_folder", folder) == 0
    assert f"unlearn report {folder.name}\n" in capsys.readouterr().out
    own = read_json(record_path(finished, "retain", 1))
    found = read_json(record_path(folder, "retain", 0))
    assert [row["id"] for row in found["examples"]] == [row["id"] for row in own["examples"]]
    likelihoods = [[row["mean_token_log_lik"] for row in record["examples"]] for record in (found, own)]
    assert likelihoods[0] == pytest.approx(likelihoods[1], abs=1e-5)
    distance = read_json(record_path(folder, "divergence", 0))["metrics"]["divergence/retrained"]
    assert distance == pytest.approx(0, abs=1e-8)
