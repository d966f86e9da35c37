"""A model and files of one's own: the stages and the study of docs/your-data.md, and one line for what is wrong with them."""

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.cli.config_files import FOLDER, PACKAGE, listing, purpose
from unlearn_lightning.cli.secrets import refuse_secrets
from unlearn_lightning.data import ChatStage
from unlearn_lightning.data.text_stage import TextStage
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.chat_tokenizer import load_tokenizer
from unlearn_lightning.records import read_run

GUIDE = (FOLDER.parent / "docs" / "your-data.md").read_text(encoding="utf-8")
SHORT = ["--model.backbone.model", "builtin:tiny-llama", "--trainer.max_steps", "1", "--trainer.accelerator", "cpu"]


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    people = [{"prompt": f"Where does person {i} live?", "response": f"In town {3 * i}."} for i in range(12)]
    sums = [{"prompt": f"What is {i} + 1?", "response": f"{i + 1}"} for i in range(16)]
    for name, rows in (("people", people), ("sums", sums)):
        Path(f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def test_a_stage_and_the_next_and_unlearning_by_the_guides_commands(files, capsys):
    """The commands of the section, one after the other, each for one step."""
    section = GUIDE.partition("## Stages of your own\n")[2].partition("```\n")[2].partition("```")[0]
    commands = section.replace("\\\n", " ").strip().splitlines()
    assert len(commands) == 3
    for command in commands:
        words = command.replace("--model.backbone.model MODEL", "").split()
        assert main([*words[1:], *SHORT, "--trainer.callbacks", "null"]) == 0
    stage, after, unlearned = (read_run(Path("runs") / name) for name in ("people", "people-sums", "people-sums-npo"))
    assert [run["kind"] for run in (stage, after, unlearned)] == ["stage", "stage", "unlearn"]
    assert after["parents"] == [stage["key"]]
    assert unlearned["parents"] == [after["key"]]


def test_the_guides_study_runs_and_its_probes_stand_on_the_terminal(files, capsys):
    study = yaml.safe_load(GUIDE.partition("```yaml\n")[2].partition("```")[0])
    assert list(study["stages"]) == ["people", "sums"]
    for part in ("fine_tuning", "unlearning"):
        study[part]["trainer"] = {"max_steps": 2}
    Path("people.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "people.yaml", "--jobs", "1", "--common.trainer.accelerator", "cpu"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "8 runs executed" in said
    assert re.search(r"paper: the path that met the forget stage last \(p=2\) forgot its responses least,? in", said)
    assert re.search(r"The probe forget metric before → after change unit GA · p=1 log-likelihood", said)


def test_a_text_stage_without_held_out_texts_measures_none(files, make_backbone):
    Path("book.txt").write_text("A town. " * 50)
    stage = TextStage(source="book.txt", held_out_examples=0, max_length=32)
    tokenizer = make_backbone().load_tokenizer()
    assert stage.measured("held_out", tokenizer, 5) == ([], [])
    examples, pieces = stage.measured("train", tokenizer, 2)
    assert len(examples) == len(pieces) == 2
    assert "A town." in examples[0].response


@pytest.mark.parametrize("value", ["-1e-4", "-.5", "-2", "-1.5E+3"])
def test_a_negative_number_belongs_to_the_flag_before_it(value):
    assert prepared(["fit", "--model.optimizer.lr", value, "--data", "ChatStage"])[-2:] != [value, "--data"]
    assert f"--model.optimizer.lr={value}" in prepared(["fit", "--model.optimizer.lr", value])


def test_a_stage_may_be_called_secrets_and_a_secret_in_it_is_refused():
    refuse_secrets({"stages": {"secrets": {"data": {"class_path": "ChatStage", "init_args": {"source": "mine.jsonl"}}}}})
    with pytest.raises(ValueError, match="holds a key or a password"):
        refuse_secrets({"stages": {"secrets": {"data": {"password": "hunter2"}}}})
    with pytest.raises(ValueError, match="holds a key or a password"):
        refuse_secrets({"trainer": {"secrets": {"a": "hunter2"}}})


@pytest.mark.parametrize("given", [["--trainer.max_steps", "0"], ["--trainer.max_epochs", "0"]])
def test_no_steps_are_no_training(given, files, capsys):
    call = ["fit", "-c", "configs/own_stage.yaml", *SHORT[:2], "--data.source", "people.jsonl", *given, "--run_folder", "runs/none"]
    assert main([*call, "--trainer.accelerator", "cpu"]) != 0
    assert "so that nothing would be trained" in capsys.readouterr().err


def test_a_folder_without_a_tokenizer_is_named(tmp_path):
    [config] = PACKAGE.glob("models/**/tiny-llama/config.json")
    shutil.copy(config, tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"holds a model and no tokenizer .* or name another folder or a Hub id in backbone\.tokenizer"
    ):
        load_tokenizer(None, str(tmp_path), None, None, None, "26 Jul 2024")


def test_a_module_that_the_model_lacks_is_named_with_those_that_it_has():
    backbone = Backbone(model="builtin:tiny-llama", lora=Lora(target_modules=["q_proj", "vproj"]))
    with pytest.raises(ValueError, match=r"names 'vproj', .* Its linear layers are down_proj, gate_proj, .*, up_proj, v_proj; all-linear"):
        backbone.load_for_fine_tuning()
    Backbone(model="builtin:tiny-llama", lora=Lora(target_modules=["q_proj", "mlp.up_proj"])).load_for_fine_tuning()


def test_of_records_that_all_lack_a_field_the_first_is_named(files):
    Path("other.jsonl").write_text("".join(json.dumps({"ask": f"Q{i}?", "reply": "A"}) + "\n" for i in range(20)))
    with pytest.raises(ValueError, match=r"^other\.jsonl:1: field 'prompt' is missing"):
        ChatStage(source="other.jsonl", held_out_examples=0).rows("train")


def test_an_empty_response_is_to_be_filled_in(files):
    Path("empty.jsonl").write_text('{"prompt": "Q?", "response": ""}\n')
    with pytest.raises(ValueError, match=r"field 'response' is ''; .* Fill it in, or leave the record out\.$"):
        list(ChatStage(source="empty.jsonl", held_out_examples=0).each_example("train"))


def test_a_long_prompt_is_quoted_with_the_setting_that_leaves_it_out(files, make_backbone):
    Path("long.jsonl").write_text(json.dumps({"prompt": "word " * 99, "response": "A"}) + "\n")
    stage = ChatStage(source="long.jsonl", held_out_examples=0, max_length=40)
    with pytest.raises(
        ValueError, match=r"^Example chat-train-00000: .*Raise max_length, or set skip_long_prompts .* This prompt is 'word"
    ):
        stage.measured("train", make_backbone().load_tokenizer(), None)


def test_the_list_of_configurations_fits_the_terminal_and_says_whole_sentences():
    assert max(map(len, listing(80).splitlines())) <= 80
    unfinished = [name for name in listing(10_000).splitlines() if name.startswith("  ") and not re.search(r"[.?']$|\)$|\]'$", name)]
    assert unfinished == []
    assert purpose("studies/smollm2_mixed.yaml").endswith("so that the model does not learn to refuse everything.")
