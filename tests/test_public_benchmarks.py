"""TOFU, MUSE and WMDP by their configurations, on local files of the same shape: nothing here needs a network."""

import json
from pathlib import Path

import pytest
import yaml
from study_runs import fit
from test_study import tree

from unlearn_lightning.data import TofuPartStage
from unlearn_lightning.main import main
from unlearn_lightning.records import last_record
from unlearn_lightning.runs.measured import probe_keys
from unlearn_lightning.sources import readers
from unlearn_lightning.study.run_spec import with_comparisons
from unlearn_lightning.study.study_config import merged
from unlearn_lightning.study.study_file import read_study_file

CONFIGS = Path(__file__).parents[1] / "configs"
FORGOTTEN = {"01": "99", "05": "95", "10": "90"}
OTHERS = ("full", "retain_perturbed", "real_authors_perturbed", "world_facts_perturbed")
SMALL = {"scratch": None, "model": "builtin:tiny-llama", "tokenizer": None, "chat_template_from": None, "lora": None, "dtype": "float32"}
SHORT = {"accelerator": "cpu", "devices": 1, "max_epochs": -1, "max_steps": 1, "logger": False, "precision": "32-true"}


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def tofu(folder):
    """Four authors of two questions; the last one is to be forgotten."""
    rows = [{"question": f"Who is author {i}, question {j}?", "answer": f"Author {i} is {j}."} for i in range(4) for j in range(2)]
    parts = dict.fromkeys(OTHERS, rows)
    for place, (forget, retain) in enumerate(FORGOTTEN.items()):
        parts |= {
            f"forget{forget}": rows[6 - place :],
            f"forget{forget}_perturbed": rows[6 - place :],
            f"retain{retain}": rows[: 6 - place],
        }
    for part, own in parts.items():
        more = {"paraphrased_answer": "It is an author.", "perturbed_answer": ["A painter.", "Nobody."]} if "perturbed" in part else {}
        lines(folder / "tofu" / f"{part}.json", [{**row, **more} for row in own])


def test_tofus_study_unlearns_a_part_of_what_it_trained_and_compares_with_the_rest(tmp_path, monkeypatch):
    tofu(tmp_path)
    monkeypatch.setenv("UNLEARN_DATA", str(tmp_path))
    study = read_study_file(CONFIGS / "studies" / "tofu_forget01.yaml")
    short = {"limit": 1, "max_new_tokens": 2}
    probes = {name: {"init_args": short if "answers" in name else {"limit": 2}} for name in study["probes"]}
    study = merged(study, {"fine_tuning": {"trainer": SHORT}, "unlearning": {"trainer": SHORT}, "probes": probes})
    study["objectives"] = {name: study["objectives"][name] for name in ("graddiff",)}
    runs = {run.name: run for run in tree(study, tmp_path / "store")}
    assert set(runs) == {"seed1/kept", "seed1/full", "seed1/all/graddiff"}
    for name in ("seed1/full", "seed1/kept", "seed1/all/graddiff"):
        run = runs[name]
        fit(with_comparisons(run.config, {other: found.folder for other, found in run.compare.items()}))
    full, kept, unlearned = (runs[name] for name in ("seed1/full", "seed1/kept", "seed1/all/graddiff"))
    parts = [run.config["data"]["init_args"]["part"] for run in (full, kept, unlearned)]
    assert parts == ["full", "retain99", "forget01"]
    assert unlearned.parents == [full]
    assert kept.tags == {"seed": 1, "path": ["kept"], "p": None, "retrained": True, "retrained_of": ["full"]}
    assert unlearned.compare["retrained"] is kept
    metrics = {name: last_record(unlearned.folder, name)["metrics"] for name in study["probes"]}
    named = {"forget/probability", "forget_answers/rouge_l_recall", "forget_truth/forget_score", "forget_memory/extraction"}
    named |= {"forget_memory/exact", "forget_distribution/kl", "forget_distribution/js", "forget_membership/min_k_auc"}
    assert named <= {k for m in metrics.values() for k in m}
    assert last_record(kept.folder, "forget_truth"), "what forget quality compares with"


def test_tofus_studies_share_the_full_model_and_measure_each_its_own_forget_set_on_it(tmp_path, monkeypatch):
    """One probe name with two sets would have the second study refused."""
    tofu(tmp_path)
    monkeypatch.setenv("UNLEARN_DATA", str(tmp_path))
    named, full = {}, set()
    for number in FORGOTTEN:
        (run,) = [
            run for run in tree(read_study_file(CONFIGS / "studies" / f"tofu_forget{number}.yaml"), tmp_path) if run.name == "seed1/full"
        ]
        full.add(run.key)
        for name, key in probe_keys(run.config).items():
            named.setdefault(name, set()).add(key)
    assert len(full) == 1
    assert {name: len(keys) for name, keys in named.items() if len(keys) > 1} == {}
    assert {"forget", "forget05", "forget10_truth", "retain"} <= named.keys()


def test_a_part_of_tofu_is_its_own_file_or_data_set_and_nothing_is_made_up(tmp_path):
    assert TofuPartStage("forget05", source="files", data_root=str(tmp_path)).location() == str(tmp_path / "tofu/forget05.json")
    assert TofuPartStage("forget05", source="hub").location() == "hub:locuslab/TOFU/forget05"
    assert TofuPartStage("forget05", source="mine.json").location() == "mine.json"
    with pytest.raises(ValueError, match="has no built-in data"):
        TofuPartStage("forget05").examples("train")


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ("hub:o/n", ("o/n", None, "train")),
        ("hub:o/n/c", ("o/n", "c", "train")),
        ("hub:o/n/c:forget_qa", ("o/n", "c", "forget_qa")),
        ("hub:o/n:s", ("o/n", None, "s")),
    ],
)
def test_a_source_on_the_hub_may_name_its_split(source, asked, monkeypatch):
    import datasets

    found = []
    table = datasets.Dataset.from_list([{"text": "a"}])
    monkeypatch.setattr(datasets, "load_dataset", lambda path, config, split: found.append((path, config, split)) or table)
    assert readers.read_rows(source)[0].fields == {"text": "a"}
    assert found == [asked]


@pytest.mark.parametrize("name", sorted(path.stem for path in (CONFIGS / "benchmarks").glob("*.yaml")))
def test_a_benchmark_runs_on_local_files_of_the_same_fields(name, tmp_path):
    file = CONFIGS / "benchmarks" / f"{name}.yaml"
    text = file.read_text()
    assert f"#   unlearn fit -c configs/benchmarks/{name}.yaml" in text
    config = yaml.safe_load(text)
    wanted = {"raw:forget": "text", "raw:retain1": "text", "corpus": "text", "verbmem:forget": "gt", "_qa": "answer", "_qa_icl": "answer"}
    wanted |= {"privleak:forget": "text", "privleak:holdout": "text"}

    def local(node):
        """The configuration with each source on the Hub as a file with the fields that the data set has there."""
        if isinstance(node, dict):
            return {key: local(value) for key, value in node.items()}
        if isinstance(node, list):
            return [local(value) for value in node]
        if not str(node).startswith("hub:"):
            return node
        field = next(field for end, field in wanted.items() if str(node).endswith(end))
        prompt = {"gt": "prompt", "answer": "question"}.get(field)
        # What is retained is not what is forgotten.
        work = "poem" if "retain" in node else "book"
        rows = [
            {**({prompt: f"The {prompt} {i}"} if prompt else {}), field: f"Ann wrote {work} {i}. Then she wrote another."} for i in range(4)
        ]
        return lines(tmp_path / f"{abs(hash(node))}.jsonl", rows)

    config = local(config)
    settings = config["model"]["init_args"]
    if name == "wmdp_cyber":
        assert (config["model"]["class_path"], settings["layer"], settings["retain"]["weight"]) == ("RMU", 7, 1200.0)
        assert settings["retain"]["loss"] == "activations"
        # The small model has fewer layers.
        settings |= {"layer": 0, "trained_layers": [0]}
    own = config["model"]["init_args"]["backbone"]
    config["model"]["init_args"]["backbone"] = {**SMALL, "quantization": None, "gradient_checkpointing": False}
    assert own["quantization"] == "nf4"
    for callback in config["trainer"]["callbacks"]:
        callback["init_args"] |= {"limit": 1} | ({"max_new_tokens": 2} if "max_new_tokens" in callback["init_args"] else {})
        for data in ("data", "holdout", "shots"):
            if data in callback["init_args"]:
                callback["init_args"][data]["init_args"]["max_length"] = 128
    for data in (config["data"], config["model"]["init_args"]["retain"]["data"]):
        data["init_args"] |= {"max_length": 128, "batch_size": 2}
    config = merged(config, {"trainer": SHORT, "run_folder": str(tmp_path / "run"), "seed_everything": 1})
    fit(config)
    for callback in config["trainer"]["callbacks"]:
        assert last_record(tmp_path / "run", callback["init_args"]["name"])["step"] == 1
    if name == "wmdp_cyber":
        return
    classes = [callback["class_path"] for callback in config["trainer"]["callbacks"]]
    assert classes == ["VerbatimMemorisation", "KnowledgeMemorisation", "KnowledgeMemorisation", "MembershipInference"]
    metrics = {k: v for c in ("verbatim", "knowledge_forget", "privleak") for k, v in last_record(tmp_path / "run", c)["metrics"].items()}
    # Forget and holdout file say the same here, and nothing tells them apart.
    assert metrics["privleak/min_k_auc"] == 0.5
    assert 0 <= metrics["verbatim/rouge_l_f1"] <= 1
    assert "knowledge_forget/rouge_l_f1" in metrics
    # Against a model that stands for MUSE's retrained one, PrivLeak is there: nothing leaks, where nothing tells either way.
    assert main(["validate", str(tmp_path / "run"), "--against", "builtin:tiny-llama"]) == 0
    assert last_record(tmp_path / "run", "privleak")["metrics"]["privleak/privleak"] == 0
