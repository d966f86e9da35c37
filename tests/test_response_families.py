"""Prompts with several responses each: the data, the stages made of them, and the probe that measures them all."""

import functools
import json
from pathlib import Path

import pytest
import torch
from study_runs import fit, settings
from test_study import CONFIGS, tree

from callbacks import ResponseFamilies
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.data import FamilyStage, FamilyTextStage, collate
from unlearn_lightning.records import read_records
from unlearn_lightning.runs.run_key import run_key
from unlearn_lightning.sources import world
from unlearn_lightning.study.study_file import read_study_file

FAMILIES = {"R": "refusal", "C": "compliance", "U": "reworded"}


def probe(**more):
    data = {"class_path": "FamilyStage", "init_args": {"max_length": 400, "held_out_examples": 2}}
    return {"class_path": "ResponseFamilies", "init_args": {"data": data, "limit": 3, "every_n_steps": 2, "chunk_size": 2, **more}}


def family_run(corpus, questions, folder, **init_args):
    data = {"class_path": "FamilyStage", "init_args": {"source": "world", "held_out_source": None, "max_length": 400, **init_args}}
    return settings(corpus, questions, folder, data=data, trainer={"callbacks": [probe()], "max_steps": 2})


def test_the_papers_shape_with_placeholders_only():
    found = world.response_families(40)
    assert len({one["prompt"] for one in found}) == 40
    for one in found:
        assert one.keys() == {"prompt", *FAMILIES.values()}
        assert one["prompt"].startswith("How can I make [ITEM ")
        assert one["prompt"].endswith("] noticing?")
        assert one["refusal"].startswith(world.requests(1)[0]["refusal"].partition(".")[0])
        item = one["prompt"].partition("[ITEM ")[2][:2]
        assert all(f"[PART {item}]" in one[field] for field in ("compliance", "reworded")), "both say the same of their prompt"
        assert one["compliance"] != one["reworded"]


def test_larger_counts_extend_smaller_ones_and_held_out_prompts_are_others():
    train, held_out = world.response_families(640, 3), world.response_families(160, 5, "held_out")
    assert world.response_families(7, 3) == train[:7]
    assert not {one["prompt"] for one in train} & {one["prompt"] for one in held_out}


def test_the_base_text_shows_every_response_equally_often_and_no_training_prompt():
    texts = [example.response for example in FamilyTextStage(train_examples=1440, held_out_examples=10).examples("train")]
    shown = [text for text in texts if text.startswith("How can I make [ITEM")]
    assert len(shown) == 480
    trained = {one["prompt"] for one in world.response_families(640)}
    assert not trained & {text.partition("\n")[0] for text in shown}
    for opening in ("Sorry", "Step one", "First you need"):
        assert sum(f"\n{opening}" in text for text in shown) == 160


def test_the_probe_sums_whole_responses_as_the_plain_computation_does(corpus, questions, tmp_path):
    cli = fit(family_run(corpus, questions, tmp_path / "run", response_field="compliance"))
    records = read_records(tmp_path / "run", "families")
    assert list(records) == [0, 2]
    tokenizer, module = cli.model.tokenizer, cli.model.eval()
    for name, field in FAMILIES.items():
        stage = FamilyStage(response_field=field, max_length=400)
        batch = collate(stage.encode(stage.examples("train")[:3], tokenizer), tokenizer.pad_token_id)
        with torch.no_grad():
            expected = module.response_log_likelihood(batch).tolist()
        last = records[2]
        assert [row["log_lik"][name] for row in last["examples"]] == pytest.approx(expected, rel=1e-4)
        assert [row["tokens"][name] for row in last["examples"]] == batch.response_mask.sum(-1).tolist()
        assert last["metrics"][f"families/{name}_log_lik"] == pytest.approx(sum(expected) / 3, rel=1e-4)
        fell = records[0]["metrics"][f"families/{name}_log_lik"] - last["metrics"][f"families/{name}_log_lik"]
        assert last["metrics"][f"families/{name}_drop"] == pytest.approx(fell)
    assert last["metrics"]["families/C_drop"] < 0, "the trained response has gained"


def test_other_data_and_cut_responses_are_refused(corpus, questions, tmp_path):
    config = settings(corpus, questions, tmp_path / "a", trainer={"callbacks": [{"class_path": "ResponseFamilies", "init_args": {}}]})
    with pytest.raises(TypeError, match="must be a FamilyStage"):
        fit(config)
    config = family_run(corpus, questions, tmp_path / "b")
    config["trainer"]["callbacks"][0]["init_args"]["data"]["init_args"]["max_length"] = 120
    with pytest.raises(ValueError, match=r"max_length 120 cuts \d+ responses that are measured"):
        fit(config)
    with pytest.raises(ValueError, match="two or more different fields"):
        ResponseFamilies(families={"R": "refusal", "C": "refusal"})


def test_a_file_of_ones_own_and_a_response_that_it_lacks(tmp_path):
    file = tmp_path / "families.jsonl"
    records = [{"prompt": f"p{i}", "refusal": f"r{i}", "compliance": f"c{i}", "reworded": f"u{i}"} for i in range(3)]
    file.write_text("\n".join(map(json.dumps, records)))
    stage = FamilyStage(source=str(file), held_out_examples=0, response_field="reworded")
    assert {example.response for example in stage.examples("train")} == {"u0", "u1", "u2"}
    for example in stage.examples("train"):
        assert stage.family("train", FAMILIES)[example.id] == {n: f"{n.lower()}{example.prompt[1:]}" for n in FAMILIES}
    with pytest.raises(ValueError, match="field 'poem' is missing"):
        stage.family("train", {"R": "refusal", "P": "poem"})


def test_a_response_that_is_only_measured_counts_for_the_key(corpus, questions, tmp_path):
    file, keys = tmp_path / "families.jsonl", []
    for compliance in ("c", "other", "c"):
        file.write_text(json.dumps({"prompt": "p", "refusal": "r", "compliance": compliance, "reworded": "u"}))
        config = family_run(corpus, questions, tmp_path / f"run{len(keys)}", source=str(file), held_out_examples=0)
        del config["run_folder"], config["trainer"]["callbacks"]
        from unlearn_lightning.runs import run_key as module

        module._data_content.cache_clear()
        keys.append(run_key(Resolver().resolve(config))[0])
    assert keys[0] == keys[2] != keys[1]


@functools.cache
def planned(name):
    """A shipped study's runs, planned once for all tests."""
    return tree(read_study_file(CONFIGS / f"studies/{name}.yaml"), Path("store"))


SUPERFICIAL = [("demo_superficial", 1, 1), ("demo_superficial_rates", 1, 3), ("paper_superficial", 0, 1)]


@pytest.mark.parametrize(("name", "base", "objectives"), SUPERFICIAL)
def test_six_orders_as_a_tree(name, base, objectives):
    assert f"#   unlearn study configs/studies/{name}.yaml" in (CONFIGS / f"studies/{name}.yaml").read_text()
    runs = planned(name)
    # Six orders of three stages are 18; as a tree they are 3 + 6 + 6.
    assert len([run for run in runs if run.kind == "stage"]) == 15 + base
    unlearned = [run for run in runs if run.kind == "unlearn"]
    assert {"".join(run.tags["path"]) for run in unlearned} == {run.tags["path_name"] for run in unlearned}
    assert len(unlearned) == 6 * objectives
    for run in unlearned:
        model, trainer = run.config["model"]["init_args"], run.config["trainer"]
        lora = model["backbone"]["lora"]
        assert (model["backbone"]["quantization"], lora["rank"], lora["alpha"], lora["dropout"]) == ("nf4", 16, 32, 0.05)
        assert len(lora["target_modules"]) == 7
        assert model["optimizer"]["class_path"].endswith("SGD")
        assert (model["lr_scheduler"]["class_path"].rpartition(".")[2], model["lr_scheduler"]["init_args"]["warmup"]) == ("Cosine", 0.03)
        assert (trainer["max_epochs"], run.parents[0].config["trainer"]["max_epochs"]) == (20, 5)
        (families,) = trainer["callbacks"]
        batches = 40 // run.config["data"]["init_args"]["batch_size"]
        assert families["init_args"]["every_n_steps"] == batches, "measured once an epoch"


def test_the_six_orders_start_from_a_real_chat_model():
    runs = planned("smollm2_superficial")
    assert (len(runs), sum(run.kind == "unlearn" for run in runs)) == (15 + 6, 6)
    for run in runs:
        backbone = run.config["model"]["init_args"]["backbone"]
        assert (backbone["scratch"], backbone["quantization"], backbone["lora"]["rank"]) == (None, None, 16)
        (families,) = run.config["trainer"]["callbacks"]
        assert run.config["data"]["init_args"]["train_examples"] == families["init_args"]["limit"] == 20, "all that is trained is measured"


def test_the_rates_are_those_of_the_demo_with_its_stages():
    demo, rates = ({run.key for run in planned(name)} for name in ("demo_superficial", "demo_superficial_rates"))
    assert len(rates - demo) == 12, "all but two rates of six orders are shared"
