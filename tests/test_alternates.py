"""Alternate answers sampled from the starting model: what is asked, what is written, and what AltPO makes of the file."""

import json
import math
import re

import pytest
from study_runs import fit, run_json, settings
from test_backbone import saved_base

from unlearn_lightning.cli.alternates import Sampled, alternate
from unlearn_lightning.cli.alternates_command import OPENING, TEMPLATE
from unlearn_lightning.cli.built_model import loaded
from unlearn_lightning.data import ChatStage, Example
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.main import main
from unlearn_lightning.objectives.alt_po import AltPO

TWO = ["--samples", "2", "--max_new_tokens", "9"]


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_what_the_model_is_asked_and_what_is_left_of_its_answer():
    one = Example("a", "Who wrote {response}?", "Ann {prompt}")
    assert Sampled(template="Q {prompt} A {response}.").question(one) == "Q Who wrote {response}? A Ann {prompt}."
    assert Sampled(template=TEMPLATE).question(Example("a", "Who?", "Ann.")).startswith("Question: Who?\nAnswer: Ann.\nNow write another")
    assert [alternate(text) for text in (" Bob. \n", "Bob. Question: Who is Bob?", "Bob.\nQ: Who?", "Question: Who?", "")] == [
        "Bob.", "Bob.", "Bob.", "", "",
    ]  # fmt: skip


@pytest.mark.parametrize("lora", [{"rank": 4, "alpha": 8}, None], ids=["adapter", "whole weights"])
def test_the_runs_own_model_writes_them_once_by_its_seed(lora, make_backbone, corpus, questions, tmp_path, monkeypatch, capsys):
    base = saved_base(make_backbone, tmp_path / "base")
    run = tmp_path / "run"
    backbone = {"model": base, "scratch": None, "lora": lora}
    fit(settings(corpus, questions, run, model={"init_args": {"backbone": backbone}}, trainer={"max_steps": 2, "logger": False}))
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["alternates", str(run), *TWO, "--out", "one.jsonl"]) == 0, capsys.readouterr().err
    said, rows = capsys.readouterr().out, read(tmp_path / "one.jsonl")
    # By hand: the run's result is asked the template, and goes on behind the opening.
    stage = ChatStage(source=questions, held_out_source=questions)
    examples, (net, tokenizer, _) = stage.examples("train"), loaded(run, True)
    encoder = stage.encoder(tokenizer)
    asked = [
        encoder.prompt_ids(TEMPLATE.replace("{prompt}", e.prompt).replace("{response}", e.response)) + encoder.response_start_ids(OPENING)
        for e in examples
    ]
    texts = generate(net, tokenizer, asked, 9, attempts=2, temperature=1.0, seed=0, batch_size=3)
    assert [(row["prompt"], row["response"], row["sample"]) for row in rows] == [
        (e.prompt, e.response, i) for e in examples for i in (0, 1)
    ]
    assert [row["alternate"] for row in rows] == [alternate(text) for two in texts for text in two]
    assert len({row["alternate"] for row in rows}) > 20, "they are sampled"
    assert f"{len(rows)} alternates of {len(examples)} prompts, temperature 1, seed 0." in said
    assert f"{sum(not row['alternate'] for row in rows)} are empty." in said or all(row["alternate"] for row in rows)
    about = json.loads((tmp_path / "one.jsonl.json").read_text())
    assert (about["samples"], about["seed"], about["template"], about["model"]) == (2, 0, TEMPLATE, str(run))
    for more, same in ((["--batch_size", "5"], True), (["--seed", "1"], False)):
        assert main(["alternates", str(run), *TWO, *more, "--out", f"{same}.jsonl"]) == 0
        assert (read(tmp_path / f"{same}.jsonl") == rows) is same
    assert main(["alternates", str(run), *TWO, "--out", "one.jsonl"]) == 2
    assert "one.jsonl is there already" in capsys.readouterr().err


def test_a_configuration_and_other_data_may_be_named_and_altpo_reads_the_file(corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(json.dumps({"prompt": f"Who wrote book {i}?", "response": "Ann"}) for i in range(3)))
    config = settings(corpus, questions, tmp_path / "run", "NPO")
    (tmp_path / "npo.yaml").write_text(json.dumps({name: value for name, value in config.items() if name != "run_folder"}))
    line = ["alternates", "-c", "npo.yaml", "--data.source", str(few), "--data.held_out_examples", "0", *TWO]
    assert main([*line, "--template", "{prompt}", "--opening", "", "--out", "alternates.jsonl"]) == 0, capsys.readouterr().err
    rows = read(tmp_path / "alternates.jsonl")
    assert sorted(row["prompt"] for row in rows) == [f"Who wrote book {i}?" for i in (0, 0, 1, 1, 2, 2)]
    data = {"source": "alternates.jsonl", "held_out_source": None, "held_out_examples": 0, "alternative_field": "alternate"}
    config = settings(corpus, questions, tmp_path / "run", "AltPO", data={"init_args": data})
    config["model"]["init_args"]["beta"] = 0.5
    config["trainer"] |= {"max_steps": 3, "log_every_n_steps": 1, "callbacks": []}
    done = fit(config)
    assert isinstance(done.model, AltPO)
    assert len(done.datamodule.encoded["train"]) == 6, "a pair for each alternate"
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    losses = [float(line.split(",")[lines[0].split(",").index("train/loss")]) for line in lines[1:]]
    # All differences are 0 at the start: -(2 / beta) log(1/2).
    assert losses[0] == pytest.approx(4 * math.log(2), abs=1e-4)
    assert losses[0] > losses[-1]
    assert run_json(tmp_path / "run")["local"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "nowhere is no run folder"),
        ([], "name a finished run"),
        (["nowhere", "--temperature", "0"], "--temperature must be above 0"),
        (["nowhere", "--template", "Who?"], r"--template must contain \{prompt\}"),
    ],
)
def test_what_cannot_be_sampled_is_refused_in_one_line(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["alternates", *words, "--out", "one.jsonl"]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error)
    assert not (tmp_path / "one.jsonl").exists()
