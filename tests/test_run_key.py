"""What counts for a run's key: every argument of every class that a run names, by its signature."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
from study_runs import settings

import callbacks
from callbacks import Probe
from callbacks.compared import Compared
from callbacks.greedy_continuation import GreedyContinuation
from unlearn_lightning.cli.parameters import parameters
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.data import StageData
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.modules import CausalLMModule, Unlearning
from unlearn_lightning.modules.retain import RetainTerm
from unlearn_lightning.objectives.npo import NPO
from unlearn_lightning.records import write_json
from unlearn_lightning.runs import neutral, source_hash
from unlearn_lightning.runs.run_key import digest, probe_key, reference_key, run_inputs, run_key
from unlearn_lightning.schedule import Cosine, PaperAdamW, WarmupStableDecay

FACTS = {"threads": 1, "processor": "a CPU"}


@pytest.fixture(scope="module")
def resolved(corpus, tmp_path_factory):
    """An NPO run with a retain term and a probe, every default written out."""
    folder = tmp_path_factory.mktemp("run")
    questions = folder / "questions.jsonl"
    questions.write_text("".join(json.dumps({"prompt": f"Who wrote book {i}?", "response": f"Ann. #### {i}"}) + "\n" for i in range(5)))
    retain = {"data": {"class_path": "ChatStage", "init_args": {"source": str(questions), "held_out_source": str(questions)}}}
    model = {"init_args": {"retain": retain, "backbone": {"lora": {}}}}
    probe = {"class_path": "GSM8KAccuracy"}
    return Resolver().resolve(settings(corpus, str(questions), folder / "run", "NPO", model=model, trainer={"callbacks": [probe]}))


@pytest.fixture
def config(resolved):
    return copy.deepcopy(resolved)


BASES = (Unlearning, CausalLMModule, StageData, Probe, Compared, GreedyContinuation)


def subclasses(cls):
    """The class and those of this package below it."""
    found = [cls] if source_hash.is_own(cls) and cls not in BASES else []
    return [*found, *(below for one in cls.__subclasses__() for below in subclasses(one))]


def path_of(cls):
    return f"{cls.__module__}.{cls.__name__}"


def fixed(read, *args):
    """Contents are looked at elsewhere; here they stay."""
    return "content"


def key_of(config, content=fixed):
    return digest(run_inputs(config, content=content)[0])


def at(config, place):
    for step in place:
        config = config[step]
    return config


def changed(config, place, **values):
    config = copy.deepcopy(config)
    at(config, place).update(values)
    return config


def neutral_arguments(config, place, names, key=key_of):
    """Those of the named settings that may have any value without changing the key."""
    before = key(config)
    return {name for name in names if key(changed(config, place, **{name: f"another {name}"})) == before}


def arguments(cls, *given):
    return set(parameters(cls)) - set(given)


BACKBONE = ("model", "init_args", "backbone")
NEUTRAL_TRAINER = {
    "accelerator", "devices", "num_nodes", "strategy", "benchmark", "deterministic", "logger", "log_every_n_steps", "enable_progress_bar",
    "enable_model_summary", "enable_autolog_hparams", "model_registry", "profiler", "default_root_dir", "enable_checkpointing",
    "detect_anomaly", "inference_mode", "accumulate_grad_batches",
}  # fmt: skip
NEUTRAL_DATA = {"micro_batch_size", "num_workers"}
MEASURED = NEUTRAL_DATA | {"batch_size", "bucket_batches", "seed"}
BY_CONTENT_DATA = {
    "source", "held_out_source", "data_root", "train_examples", "prompt_field", "response_field", "alternative_field", "response_text",
    "leave_out", "prompt_template", "data_seed",
}  # fmt: skip


def test_every_argument_of_the_trainer(config):
    names = arguments(pl.Trainer, "callbacks")
    assert names <= set(config["trainer"])
    assert neutral_arguments(config, ("trainer",), names) == NEUTRAL_TRAINER == {*neutral.TRAINER, *neutral.TRAINER_TO_ROUNDING}
    assert key_of(changed(config, ("trainer",), an_argument_of_a_later_lightning=1)) != key_of(config)
    hook = {"class_path": "lightning.pytorch.strategies.DDPStrategy", "init_args": {"ddp_comm_hook": "fp16"}}
    assert key_of(changed(config, ("trainer",), strategy=hook)) != key_of(config), "a strategy with settings may compress gradients"


def test_every_setting_of_the_command(config):
    names = set(config) - {"model", "data", "trainer", "ckpt_path"}
    assert neutral_arguments(config, (), {*names, "verbose", "a_new_one"}) == {
        "run_folder", "checkpoint_every_n_steps", "weights_only", "verbose",
    }  # fmt: skip


def test_a_checkpoint_counts_by_its_content_unless_it_is_the_runs_own(config, tmp_path):
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(b"weights")
    named = changed(config, (), ckpt_path=str(checkpoint))
    foreign = key_of(named)
    assert foreign != key_of(config)
    checkpoint.write_bytes(b"other weights")
    assert key_of(named) not in (foreign, key_of(config))
    write_json(tmp_path / "run" / "run.json", {"key": key_of(config), "status": "running", "kind": "stage"})
    assert key_of(named) == key_of(config)
    checkpoint.unlink()
    assert key_of(named) == key_of(config), "a finished run has none any more"


def test_every_argument_of_the_backbone(config, corpus, tmp_path):
    names = arguments(Backbone)
    assert names == set(at(config, BACKBONE))
    places = {"model", "tokenizer", "chat_template_from", "adapter", "revision", "scratch"}
    rounding = {"attention", "compile", "cross_entropy", "gradient_checkpointing", "shortcuts"}
    assert neutral_arguments(config, BACKBONE, names - places) == rounding
    assert (places, rounding) == (set(neutral.BACKBONE_BY_CONTENT), set(neutral.BACKBONE_TO_ROUNDING))
    for name in places - {"revision", "scratch"}:
        (tmp_path / name).mkdir()
        assert key_of(changed(config, BACKBONE, **{name: str(tmp_path / name)})) != key_of(config), name
    assert neutral_arguments(config, (*BACKBONE, "lora"), arguments(Lora)) == set()
    assert neutral_arguments(config, (*BACKBONE, "scratch"), arguments(Scratch)) == {"corpus"}
    other = tmp_path / "other.jsonl"
    other.write_text(json.dumps({"text": "other texts"}))
    assert run_key(changed(config, (*BACKBONE, "scratch"), corpus=[str(other)])) != run_key(config)


@pytest.mark.parametrize("stage", subclasses(StageData), ids=lambda cls: cls.__name__)
@pytest.mark.parametrize("place", [("data",), ("model", "init_args", "retain", "data")], ids=["data", "retain"])
def test_every_argument_of_a_stage(stage, place, config):
    at(config, place)["class_path"] = path_of(stage)
    assert neutral_arguments(config, (*place, "init_args"), arguments(stage)) == NEUTRAL_DATA | BY_CONTENT_DATA
    assert key_of(changed(config, place, class_path="unlearn_lightning.data.StageData")) != key_of(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("source", "OTHER"), ("held_out_source", None), ("train_examples", 3), ("prompt_field", "response"), ("response_field", "prompt"),
        ("response_text", "No."), ("leave_out", {"prompt": ["Who wrote book 0?"]}), ("prompt_template", "Q: {prompt}"),
    ],
)  # fmt: skip
def test_a_stages_arguments_that_count_by_their_texts(name, value, config, tmp_path):
    other = tmp_path / "other.jsonl"
    other.write_text(Path(config["data"]["init_args"]["source"]).read_text().replace("Ann", "Bob"))
    value = str(other) if value == "OTHER" else value
    data = changed(config, ("data", "init_args"), held_out_examples=2)
    assert run_key(changed(data, ("data", "init_args"), **{name: value})) != run_key(data)


def test_the_order_of_the_held_out_part_counts_by_its_texts(config):
    data = changed(config, ("data", "init_args"), held_out_examples=2, held_out_source=None)
    assert run_key(changed(data, ("data", "init_args"), data_seed=1)) != run_key(data)


@pytest.mark.parametrize("module", subclasses(CausalLMModule), ids=lambda cls: cls.__name__)
def test_every_argument_of_a_module(module, config):
    config["model"]["class_path"] = path_of(module)
    expected = {"cache_reference"} & arguments(module)
    assert neutral_arguments(config, ("model", "init_args"), arguments(module, "backbone", "retain")) == expected
    retain = ("model", "init_args", "retain")
    assert neutral_arguments(config, retain, arguments(RetainTerm, "data")) == set()


@pytest.mark.parametrize(
    ("name", "cls"), [("optimizer", PaperAdamW), ("lr_scheduler", WarmupStableDecay), ("lr_scheduler", Cosine)], ids=lambda v: str(v)[-20:]
)
def test_every_argument_of_optimizer_and_schedule(name, cls, config):
    config["model"]["init_args"][name] = {"class_path": path_of(cls), "init_args": {}}
    names = arguments(cls, "params", "optimizer", "total_steps")
    assert names
    assert neutral_arguments(config, ("model", "init_args", name, "init_args"), names) == set()


@pytest.mark.parametrize("probe", subclasses(Probe), ids=lambda cls: cls.__name__)
def test_every_argument_of_a_probe(probe, config):
    """None counts for a run, which measuring does not change; what a probe finds in a model is identified by a key of its own."""
    without = key_of(changed(config, ("trainer",), callbacks=None))
    data = copy.deepcopy(config["data"])
    config["trainer"]["callbacks"] = [{"class_path": path_of(probe), "init_args": {"data": data, "split": "held_out"}}]
    assert key_of(config) == without
    place = ("trainer", "callbacks", 0, "init_args")
    generating = ("GSM8KAccuracy", "ResponseMatch", "VerbatimMemorisation", "KnowledgeMemorisation")
    batches = {name: {"generation_batch_size"} for name in generating}
    comparing = {name: {"retrained"} for name in ("TruthRatio", "MembershipInference", "RetrainedDistribution")}
    expected = {"PathDivergence": {"retrained", "others"}, **batches, **comparing}.get(probe.__name__, set())
    # `of` names data where `data` names none, and counts by that data: tests/test_own_data.py.
    assert neutral_arguments(config, place, arguments(probe, "data", "of"), measured_key) == {"every_n_steps", "name"} | expected
    for split in ("held_out", "train"):
        there = changed(config, place, split=split)
        found = neutral_arguments(there, (*place, "data", "init_args"), arguments(StageData), measured_key)
        assert found == MEASURED | BY_CONTENT_DATA


def measured_key(config):
    (probe,) = config["trainer"]["callbacks"]
    return probe_key(probe, config, fixed)


class Meddling(Probe):
    """A probe that does something of its own at a training step, such as moving weights."""

    probe_name = "meddling"

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        pass


class Looking(Probe):
    probe_name = "looking"


@pytest.mark.parametrize(("probe", "counts"), [(Meddling, True), (Looking, False)])
def test_a_probe_of_ones_own_counts_where_it_takes_part_in_training(probe, counts, config):
    more = [{"class_path": path_of(probe), "init_args": {"limit": 1}}]
    without = key_of(changed(config, ("trainer",), callbacks=None))
    assert (key_of(changed(config, ("trainer",), callbacks=more)) != without) is counts


@pytest.mark.parametrize(
    ("callback", "counts"),
    [
        ("lightning.pytorch.callbacks.TQDMProgressBar", False), ("callbacks.Throughput", False),
        ("lightning.pytorch.callbacks.Timer", True), ("lightning.pytorch.callbacks.EarlyStopping", True),
        ("lightning.pytorch.callbacks.StochasticWeightAveraging", True),
    ],
)  # fmt: skip
def test_callbacks_count_unless_they_look_on(callback, counts, config):
    more = [*config["trainer"]["callbacks"], {"class_path": callback, "init_args": {"a": 1}}]
    assert (key_of(changed(config, ("trainer",), callbacks=more)) != key_of(config)) is counts


def test_a_class_of_ones_own_with_the_name_of_a_neutral_one_counts(config, monkeypatch):
    own = type("Throughput", (pl.Callback,), {"__module__": "somebodys"})
    monkeypatch.setitem(__import__("sys").modules, "somebodys", SimpleNamespace(Throughput=own))
    more = [*config["trainer"]["callbacks"], {"class_path": "somebodys.Throughput", "init_args": {}}]
    assert key_of(changed(config, ("trainer",), callbacks=more)) != key_of(config)


def test_every_neutral_setting_has_a_reason():
    tables = {name: table for name, table in vars(neutral).items() if isinstance(table, dict) and not name.startswith("_")}
    for table in tables.values():
        for reasons in table.values():
            assert all(len(reason.split()) > 3 for reason in (reasons.values() if isinstance(reasons, dict) else [reasons]))


# --- code ------------------------------------------------------------------------------------------------------------------------------

NAMED = ["unlearn_lightning.objectives.npo", "unlearn_lightning.data.stages", "callbacks.gsm8k_accuracy", "unlearn_lightning.schedule"]


@pytest.mark.parametrize("module", NAMED)
@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("", "# a comment\n\n", False),
        ('"""', '"""Another docstring. ', False),
        ("from unlearn_lightning", "from unlearn_lightning.elsewhere", False),
        ("", "A_NEW_FACTOR = 500\n", True),
        ("return ", "return 500 * ", True),
    ],
    ids=["comment", "docstring", "moved modules", "new line", "changed formula"],
)
def test_an_edited_class_of_this_package_counts_by_its_syntax(module, old, new, counts, config, monkeypatch):
    config["model"]["init_args"]["optimizer"] = {"class_path": "unlearn_lightning.schedule.PaperAdamW", "init_args": {}}
    before, measured, read = key_of(config), measured_key(config), source_hash._source

    def edited(found):
        source = read(found)
        if found.__name__ != module:
            return source
        text = source.decode()
        if old:
            return text.replace(old, new, 1).encode()
        # Behind the imports, where a statement may stand.
        head, _, tail = text.partition("from __future__ import annotations\n")
        return f"{head}from __future__ import annotations\n{new}{tail}".encode()

    monkeypatch.setattr(source_hash, "_source", edited)
    # The probe's own source counts for what it measures, and everything else for the run.
    assert (key_of(config) != before) is (counts and "callbacks" not in module)
    assert (measured_key(config) != measured) is (counts and module in ("callbacks.gsm8k_accuracy", "unlearn_lightning.data.stages"))


def test_where_a_class_of_this_package_lies_does_not_count(config):
    assert source_hash.class_name("unlearn_lightning.data.ChatStage") == source_hash.class_name("unlearn_lightning.data.stages.ChatStage")
    other = copy.deepcopy(config)
    other["data"]["class_path"] = "unlearn_lightning.data.stages.ChatStage"
    other["trainer"]["callbacks"][0]["class_path"] = path_of(callbacks.GSM8KAccuracy)
    assert other != config
    assert key_of(other) == key_of(config)
    text = json.dumps(run_inputs(config)[0])
    assert not [place for place in ("unlearn_lightning.", "callbacks.") if place in text]


def test_a_class_counts_with_its_bases_and_the_shared_ones_do_not(config):
    code = source_hash.own_code(["unlearn_lightning.data.family_stage.FamilyTextStage", path_of(NPO)])
    assert set(code) == {"FamilyTextStage", "TextStage", "NPO"}


# --- the reference file ----------------------------------------------------------------------------------------------------------------


def reference_of(config):
    return reference_key(config, FACTS, fixed)


def test_every_setting_of_the_reference_file(config):
    """All that counts for a run counts here, but what only says how the run trains; what rounds counts as one of the facts."""
    trained = {
        "max_epochs", "max_steps", "max_time", "min_epochs", "min_steps", "gradient_clip_val", "gradient_clip_algorithm",
        "limit_train_batches", "fast_dev_run",
    }  # fmt: skip
    trainer = arguments(pl.Trainer, "callbacks")
    assert neutral_arguments(config, ("trainer",), trainer, reference_of) == trained | NEUTRAL_TRAINER
    assert key_of(changed(config, ("trainer",), brand_new=1)) != key_of(config)
    order = {"seed", "batch_size", "bucket_batches", "held_out_examples"}
    data = arguments(StageData) - BY_CONTENT_DATA - {"held_out_examples"}
    assert neutral_arguments(config, ("data", "init_args"), data, reference_of) == NEUTRAL_DATA | order - {"held_out_examples"}
    assert neutral_arguments(config, ("model", "init_args"), arguments(NPO, "backbone"), reference_of) == arguments(NPO, "backbone")
    assert neutral_arguments(config, BACKBONE, {"dtype", "quantization", "seed", "lora"}, reference_of) == {"lora"}
    assert reference_of(changed(config, BACKBONE, lora=None)) != reference_of(config)
    for fact in FACTS:
        assert reference_key(config, {**FACTS, fact: 2}, fixed) != reference_of(config)


class OtherLikelihood(NPO):
    def token_log_likelihood(self, batch):
        return super().token_log_likelihood(batch) / 2


class OtherLoss(NPO):
    def forget_loss(self, batch):
        return 2 * super().forget_loss(batch)


@pytest.mark.parametrize(("objective", "counts"), [(OtherLikelihood, True), (OtherLoss, False)])
def test_an_objective_shares_the_reference_unless_it_has_a_likelihood_of_its_own(objective, counts, config):
    other = changed(config, ("model",), class_path=path_of(objective))
    assert (reference_of(other) != reference_of(config)) is counts
