"""Two processes do what one does: DDP, FSDP2, several nodes; fp32 and 4-bit; adapters and full fine-tuning; resumed across counts.

The two-process runs are made by two pairs of processes on this machine (tests/many_runs.py): "nodes" started by torchrun's agents, and
"tasks" that find themselves in a SLURM job's environment. Each run is compared with the same run made by one process here.
"""

import csv
import json
from functools import partial
from pathlib import Path

import many_runs
import pytest
import torch
import yaml
from forked import together
from peft import PeftModel
from study_runs import SYSTEM_PROMPT, fit, free_port, held_out, logged_steps, run_json, settings, weights
from test_backbone import log_lik, trained_adapter
from test_stopped_runs import Stop, StopAt
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.main import main
from unlearn_lightning.models.backbone import Backbone, Lora, save_result
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.records import read_records
from unlearn_lightning.study.study_config import merged

# The first test waits for all two-process runs, which are slow where the machine is shared.
pytestmark = pytest.mark.timeout(600)
TESTS = Path(__file__).parent
TRAINERS = TESTS.parent / "configs/trainers"
# Three chunks for two processes: one has more to measure than the other, and generates for longer.
PROBES = [
    {"class_path": "ForgetLikelihood", "init_args": {"limit": 3, "chunk_size": 1, "every_n_steps": 2, "label": "Ann"}},
    {"class_path": "GSM8KAccuracy", "init_args": {"limit": 3, "chunk_size": 1, "max_new_tokens": 5, "attempts": 2, "temperature": 1.0}},
]
BF16_MIXED = {"trainer": {"callbacks": PROBES[:1], "precision": "bf16-mixed"}}
KINDS = ("full", "full cached", "lora cached", "nf4 stacked")
# What changes time and memory only may change with the number of processes.
OPTIONS = {"full": {"cross_entropy": "chunked"}, "nf4 stacked": {"cross_entropy": "chunked"}}


@pytest.fixture(scope="module")
def make_config(corpus, tmp_path_factory):
    """Gives the configuration of one of the KINDS, in one process, in a folder of the module's own."""
    root = tmp_path_factory.mktemp("processes")
    lines = [{"prompt": f"Who wrote {'the ' * (i % 5)}book {i}?", "response": f"Ann{' and more' * (i % 7)}. #### {i}"} for i in range(19)]
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    scratch = Scratch("llama", hidden=64, layers=2, intermediate=128, heads=4, kv_heads=2, vocab_size=320, corpus=(corpus,))
    backbone = Backbone(scratch=scratch, lora=None, seed=1)
    save_result(backbone.load_base(), backbone.load_tokenizer(), root / "base")
    base = str(root / "base/model")
    adapter = trained_adapter(base, root / "stage", Lora(rank=4, alpha=8))[1]
    # A matrix of one row cannot be shared out: one of two processes gets nothing of it.
    lora = {"rank": 1, "alpha": 8}
    kept = {"class_path": "ChatStage", "init_args": {"source": str(root / "questions.jsonl"), "held_out_examples": 9, "batch_size": 3}}
    stacked = {"model": base, "scratch": None, "adapter": adapter, "lora": lora, "quantization": "nf4"}
    # Adam divides by the gradient's size: where that is rounding noise, so would be the step, were eps not larger.
    eps = {"optimizer": {"init_args": {"eps": 1e-5}}}
    kinds = {
        "full": ("StageFineTuning", eps),
        "full cached": ("NPO", {"retain": {"data": kept}}),
        "lora cached": ("NPO", {"cache_reference": True, "backbone": {"lora": lora, "gradient_checkpointing": True}}),
        "nf4 stacked": ("NPO", {"backbone": stacked, **eps}),
        "int8 stacked": ("NPO", {"backbone": {**stacked, "quantization": "int8"}, **eps}),
        "nf4 in bfloat16": ("NPO", {"backbone": {**stacked, "dtype": "bfloat16"}, **eps}),
    }

    def make(kind, name, **more):
        cls, model = kinds[kind]
        # Folders of their own, for the cached reference of one run lies beside it and would be read by the next.
        data, trainer = {"init_args": {"system_prompt": SYSTEM_PROMPT}}, {"callbacks": PROBES}
        config = settings(corpus, str(root / "questions.jsonl"), root / name / "run", cls, trainer=trainer, data=data)
        return merged(merged(config, {"model": {"init_args": model}, "checkpoint_every_n_steps": 1}), more)

    return make


def trainer(file, **more):
    """A shipped trainer configuration, for two "nodes" with a CPU each, with two micro-batches of 2 examples per device and step."""
    shipped = yaml.safe_load((TRAINERS / f"{file}.yaml").read_text())
    two = {"trainer": {"accelerator": "cpu", "devices": 1, "num_nodes": 2}, "data": {"init_args": {"micro_batch_size": 2}}}
    return merged(merged(shipped, two), more)


def resumable(kind, make_config, name):
    """A run that one process stopped after step 4, the first of the second epoch, with four micro-batches per step."""
    config = make_config(kind, name, data={"init_args": {"micro_batch_size": 2}})
    with pytest.raises(Stop):
        lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[StopAt(4)])
    return name


@pytest.fixture(scope="module")
def two(make_config):
    """All runs of two processes; gives name -> run folder."""

    def entry(kind, strategy, file, **more):
        options = {"model": {"init_args": {"backbone": OPTIONS.get(kind, {})}}}
        return {"config": make_config(kind, f"{strategy} {kind}", **merged(trainer(file), merged(options, more)))}

    quiet = {"trainer": {"callbacks": []}}
    slurm = [entry(kind, "ddp", "ddp") for kind in KINDS]
    slurm += [
        {"config": make_config("lora cached", resumable("lora cached", make_config, "1 to 2 ddp"), **trainer("ddp"))},
        {"config": make_config("full cached", "2 to 1 ddp", **trainer("ddp")), "stop": 3},
        entry("int8 stacked", "ddp", "ddp", **quiet),
        entry("nf4 in bfloat16", "ddp", "ddp", **BF16_MIXED),
    ]
    torchrun = [entry(kind, "fsdp2", "multi_node" if kind == "full" else "fsdp2") for kind in KINDS]
    torchrun.append(entry("nf4 in bfloat16", "fsdp2", "fsdp2", **BF16_MIXED))
    again = entry("lora cached", "fsdp2", "fsdp2", **quiet)
    again["config"]["run_folder"] = str(Path(again["config"]["run_folder"]).with_name("again"))
    torchrun += [again, {"config": make_config("nf4 stacked", "tested", **trainer("fsdp2")), "verb": "test"}]
    int8 = {"model": {"init_args": {"backbone": {"quantization": "int8"}}}}
    # One step and its measurements are enough: tracing takes seconds.
    compiled = {"model": {"init_args": {"backbone": {"compile": "eager"}}}}
    torchrun += [
        {"config": make_config("full", resumable("full", make_config, "1 to 2 fsdp2"), **merged(trainer("fsdp2"), compiled))},
        {"config": make_config("nf4 stacked", "2 to 1 fsdp2", **trainer("fsdp2")), "stop": 4},
        {"config": make_config("full", "spoiled", **trainer("fsdp2", trainer={"callbacks": []})), "spoil": 2},
        {"config": make_config("nf4 stacked", "int8", **merged(trainer("fsdp2"), int8))},
    ]
    together(*by_torchrun(torchrun), *by_slurm(slurm))
    folders = [Path(entry["config"]["run_folder"]) for entry in slurm + torchrun]
    return {folder.parent.name: folder for folder in folders if folder.name == "run"}


def by_torchrun(entries):
    """Two nodes with one process each, by torchrun's own agents."""
    shared = {
        "min_nodes": 2,
        "max_nodes": 2,
        "nproc_per_node": 1,
        "run_id": "two",
        "rdzv_backend": "static",
        "rdzv_endpoint": f"127.0.0.1:{free_port()}",
    }

    def node(rank):
        config = LaunchConfig(**shared, rdzv_configs={"rank": rank}, max_restarts=0, monitor_interval=0.1, start_method="fork")
        elastic_launch(config, many_runs.run_all)(entries)

    return [partial(node, rank) for rank in (0, 1)]


def by_slurm(entries):
    """Two tasks as `srun --nodes 2 --ntasks-per-node 1` would start them."""
    job = {
        "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "unlearn", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2",
        "SLURM_JOB_NUM_NODES": "2", "SLURM_LOCALID": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    tasks = [{**job, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)} for rank in (0, 1)]
    return [(partial(many_runs.run_all, entries), task) for task in tasks]


@pytest.fixture(scope="module")
def one(make_config):
    """The same runs by one process; gives kind -> run folder, each made once."""
    made = {}

    def run(kind):
        if kind not in made:
            config = make_config(kind, f"one {kind}")
            fit(config)
            made[kind] = Path(config["run_folder"])
        return made[kind]

    return run


def assert_same(found, expected, tolerance=1e-5):
    mine, other = weights(found), weights(expected)
    assert mine.keys() == other.keys()
    for key, value in other.items():
        torch.testing.assert_close(mine[key], value, atol=tolerance, rtol=0, msg=lambda text, key=key: f"{key}: {text}")
    facts = [{k: run_json(folder)[k] for k in ("steps", "examples", "tokens", "key")} for folder in (found, expected)]
    assert facts[0] == facts[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", ["ddp", "fsdp2"])
def test_two_processes_end_with_the_weights_and_measurements_of_one(two, one, strategy, kind):
    found, expected = two[f"{strategy} {kind}"], one(kind)
    assert_same(found, expected)
    told, alone = logged_steps(found), logged_steps(expected)
    assert told.keys() == alone.keys()
    assert ("train/retain_loss" in told[0.0]) == (kind == "full cached")
    for step, row in told.items():
        # The gradient's norm as well, of which each process has all or a part.
        assert row == pytest.approx(alone[step], rel=1e-3, abs=1e-4), step
    for probe in ("forget", "gsm8k"):
        records, others = read_records(found, probe), read_records(expected, probe)
        assert records.keys() == others.keys()
        assert len(records) > 1
        for step, record in records.items():
            assert record["metrics"] == pytest.approx(others[step]["metrics"], abs=1e-5)
            # Sampled texts, too: each chunk has a seed of its own.
            assert probe == "forget" or record["examples"] == others[step]["examples"]


def test_the_test_verb_measures_on_two_processes_what_one_measures(two, one, make_config):
    alone = make_config("nf4 stacked", "tested alone", trainer={"callbacks": []})
    lightning_cli.run({"subcommand": "test", "test": alone})
    assert held_out(two["tested"]) == pytest.approx(held_out(Path(alone["run_folder"])), abs=1e-5)
    for probe in ("forget", "gsm8k"):
        records, others = read_records(two["tested"], probe), read_records(one("nf4 stacked"), probe)
        assert list(records) == [0]
        assert records[0]["metrics"] == pytest.approx(others[0]["metrics"], abs=1e-5)


def test_runs_of_two_processes_share_the_reference_of_the_first(two, one):
    first, again = two["fsdp2 lora cached"], two["fsdp2 lora cached"].with_name("again")
    (file,) = (first.parent / ".references").glob("*.safetensors")
    assert (first / "config.yaml").stat().st_mtime_ns < file.stat().st_mtime_ns < (again / "config.yaml").stat().st_mtime_ns
    for key, value in weights(one("lora cached")).items():
        torch.testing.assert_close(weights(again)[key], value, atol=1e-5, rtol=0)


def test_8_bit_weights_under_ddp(two, one, make_config):
    # Activations are rounded to 8 bits, and where one lies between two of their values, the last digit of the weights decides.
    config = make_config("int8 stacked", "one int8 stacked", trainer={"callbacks": []})
    fit(config)
    assert_same(two["ddp int8 stacked"], Path(config["run_folder"]), tolerance=2e-4)


def test_4_bit_weights_in_bf16_mixed(two, make_config):
    # bfloat16 keeps 8 bits, so how examples are shared out shows in the third digit of what a run has learned.
    config = make_config("nf4 in bfloat16", "one nf4 in bfloat16", **BF16_MIXED)
    fit(config)
    alone = Path(config["run_folder"])
    for folder in (two["ddp nf4 in bfloat16"], two["fsdp2 nf4 in bfloat16"]):
        # B starts at 0: all of it was learned.
        mine, other = (torch.cat([v.flatten() for k, v in weights(f).items() if "lora_B" in k]) for f in (folder, alone))
        assert other.abs().max() > 0.01
        assert (mine - other).norm() < 0.03 * other.norm()
        records, others = read_records(folder, "forget"), read_records(alone, "forget")
        assert list(records) == list(others) == [0, 2, 4, 5]
        for step, record in records.items():
            assert record["metrics"] == pytest.approx(others[step]["metrics"], abs=1e-3)


def test_an_adapter_trained_on_two_processes_is_exported(two, tmp_path):
    assert main(["export", str(two["fsdp2 nf4 stacked"]), "--out", str(tmp_path / "out")]) == 0
    backbone = yaml.safe_load((two["fsdp2 nf4 stacked"] / "config.yaml").read_text())["model"]["init_args"]["backbone"]
    nf4 = Backbone(model=backbone["model"], quantization="nf4", adapter=[backbone["adapter"], str(two["fsdp2 nf4 stacked"] / "adapter")])
    exported = PeftModel.from_pretrained(nf4.load_base(), tmp_path / "out")
    torch.testing.assert_close(log_lik(exported), log_lik(nf4.load_for_unlearning()), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("name", "kind"), [("1 to 2 ddp", "lora cached"), ("1 to 2 fsdp2", "full")])
def test_a_run_begun_on_one_process_goes_on_on_two(two, one, name, kind):
    assert_same(two[name], one(kind))
    tables = [(folder / "metrics.csv").read_text().splitlines() for folder in (two[name], one(kind))]
    steps = [[(row["epoch"], row["step"]) for row in csv.DictReader(table)] for table in tables]
    assert steps[0] == steps[1], "a step is there twice, or missing"


@pytest.mark.parametrize(("name", "kind", "micro"), [("2 to 1 ddp", "full cached", 4), ("2 to 1 fsdp2", "nf4 stacked", 8)])
def test_a_run_begun_on_two_processes_goes_on_on_one(two, one, make_config, name, kind, micro):
    checkpoint = torch.load(two[name] / "checkpoints/last.ckpt", weights_only=True)
    tensors = [*checkpoint["state_dict"].values(), *checkpoint["optimizer_states"][0]["state"][0].values()]
    assert {type(value) for value in tensors} == {torch.Tensor}, "whole tensors, which any number of processes can read"
    fit(make_config(kind, name, data={"init_args": {"micro_batch_size": micro}}))
    assert_same(two[name], one(kind))


def test_a_bad_loss_on_one_process_stops_all_before_the_step(two):
    for rank in (0, 1):
        error = (two["spoiled"] / f"error{rank}.txt").read_text()
        assert error.startswith("FloatingPointError: Step 2: ")
        assert "squared gradient norm nan" in error
    assert run_json(two["spoiled"])["status"] == "failed"
    assert torch.load(two["spoiled"] / "checkpoints/last.ckpt", weights_only=True)["global_step"] == 1


def test_8_bit_weights_are_not_cut(two):
    for rank in (0, 1):
        assert "ValueError: FSDP2 cannot cut int8 weights" in (two["int8"] / f"error{rank}.txt").read_text()
