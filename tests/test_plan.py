"""`unlearn study --plan`: what is estimated, against real models, adapters and runs; and the paper's studies, without a network."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from huggingface_hub import HfApi
from rich.console import Console
from safetensors import safe_open
from test_study import config_of, small, tree

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.models.backbone import Backbone, Lora, save_result
from unlearn_lightning.records import is_finished, read_run
from unlearn_lightning.runs import run_key
from unlearn_lightning.runs.content import hub_commit
from unlearn_lightning.sources.readers import HubError
from unlearn_lightning.study import command
from unlearn_lightning.study import estimate as estimating
from unlearn_lightning.study import unread as unread_room
from unlearn_lightning.study.architectures import ARCHITECTURES
from unlearn_lightning.study.estimate import Estimator, Shape, optimizer_steps
from unlearn_lightning.study.plan_commands import planned_config
from unlearn_lightning.study.plan_view import Speed, print_plan, stage_runs
from unlearn_lightning.study.run import with_ancestors
from unlearn_lightning.study.study_file import read_study_file
from unlearn_lightning.study.tree import plan
from unlearn_lightning.study.unread import Unread, quick_hub

STUDIES = Path(__file__).parents[1] / "configs" / "studies"
# Studies beyond the paper's own: stage runs, what they would be were nothing shared, unlearning runs. Others have tests of their own, and
# variants of an objective share the stages of the study that they are like (test_study.py).
OPEN = {"paper_retain": (13, 19, 36), "paper_steps": (13, 19, 36), "paper_adapters": (13, 19, 48), "paper_recency": (18, 51, 27)}
NOT_PLANNED = {*OPEN, "paper_superficial", "paper_learning_rates", "paper_schedules"}
PAPER = [file for file in sorted(STUDIES.glob("paper_*.yaml")) if file.stem not in NOT_PLANNED]
# As published on the models' pages.
PARAMETERS = {
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "meta-llama/Llama-3.2-3B": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B": 70_553_706_496,
    "meta-llama/Llama-2-13b-hf": 13_015_864_320,
    "Qwen/Qwen2.5-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-14B": 14_770_033_664,
    "Qwen/Qwen3-0.6B-Base": 596_049_920,
    "Qwen/Qwen3-1.7B-Base": 1_720_574_976,
    "Qwen/Qwen3-8B-Base": 8_190_735_360,
    "google/gemma-3-1b-pt": 999_885_952,
    "google/gemma-3-4b-pt": 4_300_079_472,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "microsoft/Phi-4-mini-instruct": 3_836_021_760,
    "allenai/OLMo-2-0425-1B": 1_484_916_736,
    "allenai/OLMo-2-1124-7B": 7_298_617_344,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
}


@pytest.fixture
def no_network(monkeypatch):
    """Every look-up of a host fails, as on a machine without a network."""

    def fail(*args, **kwargs):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    monkeypatch.setattr(unread_room, "_hub_answers", lambda: False)
    hub_commit.cache_clear()


def settings(backbone):
    """The backbone as a resolved configuration has it."""
    scratch = backbone.scratch and {**vars(backbone.scratch), "corpus": list(backbone.scratch.corpus)}
    names = ("model", "tokenizer", "chat_template_from", "template_date", "revision", "dtype")
    return {**{name: getattr(backbone, name) for name in names}, "scratch": scratch}


def shown(study, runs, folder, **options):
    console = Console(record=True, width=200, quiet=False, file=open("/dev/null", "w"))  # noqa: SIM115
    found = print_plan(study, runs, folder, console, **options)
    return found, console.export_text()


# --- numbers by hand ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("examples", "batch", "epochs", "steps", "limit", "expected"),
    [
        (4500, 128, 2, -1, None, 72),  # 35 full batches and one of 20 examples, twice
        (4000, 256, 10, -1, 1.0, 160),
        (19, 8, None, 5, None, 5),
        (19, 8, -1, 400, None, 400),
        (19, 8, 1, 400, None, 3),
        (19, 8, 2, -1, 2, 4),
        (4500, 128, 2, -1, 0.5, 36),
    ],
)
def test_steps(examples, batch, epochs, steps, limit, expected):
    assert optimizer_steps(examples, batch, epochs, steps, limit) == expected


def test_endless_training_is_refused():
    with pytest.raises(ValueError, match="for ever"):
        optimizer_steps(10, 2, -1, -1)


def test_flops_by_hand():
    assert Shape(100, 90, 0).flops(10) == 6 * 90 * 10
    assert Shape(100, 90, 5).flops(10) == (4 * 90 + 6 * 5) * 10
    # NPO reads every token once more with the adapter off.
    assert Shape(100, 90, 5).flops(10, 10) == (6 * 90 + 6 * 5) * 10


def test_hours_by_hand():
    estimate = estimating.RunCost(1, 7200, 7200, 1, 36_000, 1, 1, False)
    assert Speed("", tokens_per_second=2).hours(estimate) == 1
    assert Speed("", flops_per_second=5).hours(estimate) == 2


# --- against the real thing --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("targets", ["all-linear", ["q_proj", "v_proj", "down_proj"]])
def test_parameters_and_adapter_bytes_are_those_of_the_real_model(architecture, targets, make_backbone, tmp_path):
    lora = Lora(rank=4, alpha=8, target_modules=targets)
    backbone = make_backbone(architecture, lora=lora)
    net = backbone.load_for_fine_tuning()
    shape = Estimator().shape(settings(backbone), vars(lora))
    assert shape.parameters == sum(p.numel() for p in backbone.load_base().parameters())
    assert shape.multiplied == shape.parameters, "tied embeddings are the output layer as well"
    save_result(net, backbone.load_tokenizer(), tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    assert 4 * shape.adapter == file.stat().st_size - header
    with safe_open(file, "pt") as saved:
        assert shape.adapter == sum(saved.get_tensor(name).numel() for name in saved.keys())  # noqa: SIM118


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_table_gives_the_published_numbers(name, no_network):
    estimator = Estimator()
    with quick_hub() as reached:
        shape = estimator.shape(settings(Backbone(model=name)), None)
    assert not reached
    assert shape.parameters == PARAMETERS[name]
    _, hidden, *_, vocabulary, tied = ARCHITECTURES[name]
    assert shape.parameters - shape.multiplied == (0 if tied else hidden * vocabulary)
    assert any("built-in table" in note for note in estimator.notes)


def test_the_table_has_every_model_of_the_configurations():
    files = (Path(__file__).parents[1] / "configs" / "backbones").glob("*.yaml")
    models = {yaml.safe_load(file.read_text())["model"]["init_args"]["backbone"]["model"] for file in files}
    assert {model for model in models if model and not model.startswith("builtin:")} == set(ARCHITECTURES)


def test_an_unknown_model_gives_no_numbers_and_says_so(no_network):
    estimator = Estimator()
    with quick_hub():
        assert estimator.shape(settings(Backbone(model="nobody/nothing")), None) is None
    assert "unknown" in estimator.notes[0]


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4}], ids=["all weights", "lora"])
def test_a_printed_command_does_the_run_that_the_study_then_counts_as_finished(lora, corpus, questions, tmp_path):
    written = small(corpus, questions, backbone={"lora": lora})
    study, store = config_of(written), tmp_path / "store"
    runs = {run.name: run for run in tree(written, store)}
    estimates, text = shown(study, list(runs.values()), tmp_path / "study")
    for name in (f"seed0/{n}" for n in ("base", "inst", "inst-math", "safety", "safety-inst", "safety-inst-math", "p1/npo")):
        file = tmp_path / "study" / "plan" / f"{name.replace('/', '-')}.yaml"
        assert f"OMP_NUM_THREADS=1 unlearn fit -c {file}" in text
        lightning_cli.run({"subcommand": "fit", "fit": yaml.safe_load(file.read_text())})
        run = runs[name]
        assert is_finished(run.folder)
        done = read_run(run.folder)
        assert done["key"] == run.key
        # What was planned is what happened.
        found = estimates[name]
        assert (found.steps, found.tokens, found.examples, found.estimated) == (done["steps"], done["tokens"], done["examples"], False)
        weights = next(run.folder.glob("*/*.safetensors"))
        header = 8 + int.from_bytes(weights.read_bytes()[:8], "little")
        assert found.result_bytes == weights.stat().st_size - header
    again, text = shown(study, list(runs.values()), tmp_path / "study")
    assert again == estimates
    assert "7 are finished" in text
    assert "measured in 7 finished runs" in text


# --- a part of a study ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "expected", "said"),
    [
        (["--only", "seed0/p3/npo"], ["inst", "inst-math", "inst-math-safety", "p3-npo"], "3 stage runs, 1 unlearning runs"),
        (["--until", "inst"], ["inst", "safety", "safety-inst"], "3 stage runs, 0 unlearning runs"),
        (["--until", "inst", "--only", "*safety*"], ["safety", "safety-inst"], "2 stage runs, 0 unlearning runs"),
    ],
)
def test_a_part_of_a_study_is_planned_as_it_would_be_run(asked, expected, said, corpus, questions, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(small(corpus, questions, positions=[1, 3], base=None, retrained=True)))
    arguments = [str(file), "--folder", str(tmp_path / "study"), "--store", str(tmp_path / "store"), "--plan"]
    assert command.study(arguments) == 0
    whole = capsys.readouterr().out
    assert command.study([*arguments, *asked]) == 0
    text = capsys.readouterr().out
    planned = (tmp_path / "study" / "plan" / "commands.sh").read_text()
    assert [Path(line.split()[-1]).stem for line in planned.splitlines() if "fit" in line] == [
        f"seed0-{n.replace('/', '-')}" for n in expected
    ]
    assert text.count("unlearn fit -c") == len(expected) < whole.count("unlearn fit -c")
    assert f"{said} (of {whole.count('unlearn fit -c')} runs of the study); 0 are finished." in " ".join(text.split())


def test_a_study_folder_keeps_the_study_and_not_the_part_that_was_run_last(corpus, questions, tmp_path, capsys):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(small(corpus, questions, positions=[1], base=None, retrained=False)))
    places = ["--folder", str(tmp_path / "study"), "--store", str(tmp_path / "store")]
    assert command.study([str(file), *places, "--until", "safety", "--only", "seed0/safety"]) == 0
    capsys.readouterr()
    assert command.study([str(tmp_path / "study" / "study.yaml"), *places, "--plan"]) == 0
    text = capsys.readouterr().out
    assert text.count("unlearn fit -c") == 5
    assert "(of " not in text


def test_planning_what_fits_no_run_and_planning_a_measurement_are_refused(corpus, questions, tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(yaml.safe_dump(small(corpus, questions)))
    arguments = [str(file), "--folder", str(tmp_path / "study"), "--store", str(tmp_path / "store"), "--plan"]
    with pytest.raises(ValueError, match=r"--only 'seed9/.' fits no run. The runs are: seed0/base"):
        command.study([*arguments, "--only", "seed9/*"])
    with pytest.raises(ValueError, match=r"--until inst and --only 'seed9/.' fits no run"):
        command.study([*arguments, "--until", "inst", "--only", "seed9/*"])
    with pytest.raises(ValueError, match="--throughput without --plan says nothing"):
        command.study([*arguments[:-1], "--throughput", "1000"])
    with pytest.raises(ValueError, match="--measure trains nothing; leave one of them out"):
        command.study([*arguments, "--measure", "probe"])


def test_a_run_is_not_compared_with_a_retrained_model_that_is_not_planned(corpus, questions, tmp_path):
    runs = tree(small(corpus, questions), tmp_path)
    run = next(run for run in runs if run.kind == "unlearn")
    retrained = run.compare["retrained"]
    assert str(retrained.folder) in json.dumps(planned_config(run, runs))
    assert str(retrained.folder) not in json.dumps(planned_config(run, with_ancestors(runs, [run])))


# --- the paper's studies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", PAPER, ids=lambda f: f.stem)
def test_the_papers_studies_are_planned_without_a_network(file, tmp_path, no_network):
    text = file.read_text()
    assert f"#   unlearn study configs/studies/{file.name} --plan" in text
    study, unread = config_of(read_study_file(file)), Unread()
    with quick_hub():
        runs = plan(study, tmp_path / "store", Resolver().resolve, unread)
    estimates, text = shown(study, runs, tmp_path / "study", peak_flops=1e15)
    assert stage_runs(study, runs) == (13, 19)
    ends = {run.tags["p"]: run.tags["path"] for run in runs if run.kind == "stage" and (run.tags["p"] or run.tags.get("retrained"))}
    assert (ends[None], ends[3]) == (["inst", "tofu", "math"], ["inst", "tofu", "safety", "math"])
    unlearning = 4 * len(study.objectives)  # each objective, and each of its variants, on four paths
    assert f"13 stage runs instead of 19 (6 shared), {unlearning} unlearning runs; 0 are finished." in text
    assert "for adapters, instead of" in text
    assert "at 40% of the given 1e+15 FLOP/s" in text
    batch = 256 if study.name.endswith(("13b", "14b")) else 128
    assert estimates["seed0/inst"].steps == -(-4000 // batch) * 10
    assert estimates["seed0/safety"].steps == -(-4500 // batch) * 2
    losses = {name: settings["model"]["class_path"] for name, settings in study.objectives.items()}
    flops = {losses[name]: estimates[f"seed0/p4/{name}"].flops for name in losses}
    assert {estimates[f"seed0/p4/{name}"].steps for name in losses} == {36}
    assert flops["GradientAscent"] == flops["SimNPO"] < flops["NPO"] < 1.51 * flops["GradientAscent"]
    assert all(e.estimated for e in estimates.values())
    assert "data set openai/gsm8k/main could not be read" in text
    assert "UTF-8 bytes / 4" in text
    assert "built-in table" in text
    models = {study.backbone[name] for name in ("model", "chat_template_from")} - {None}
    assert set(unread.why) == {"openai/gsm8k/main", "locuslab/TOFU/full", "PrincetonPLI/Instruct-SkillMix-SDA", *models}

    # A key that covers unread data is marked, and so are its descendants'; nothing is written that could be executed.
    marked = {run.name for run in runs if run.key.startswith(run_key.UNREAD)}
    assert marked == {run.name for run in runs}
    assert not list((tmp_path / "study").glob("plan/*"))
    assert "unlearn fit -c" in text
    assert f"{13 + unlearning} of these configurations are not written" in text


@pytest.mark.parametrize("name", OPEN)
def test_open_questions_at_paper_size(name):
    file = STUDIES / f"{name}.yaml"
    assert f"#   unlearn study configs/studies/{name}.yaml --plan" in file.read_text()
    study = config_of(read_study_file(file))
    assert len(study.all_paths()) * len(study.objectives) == OPEN[name][2]


@pytest.mark.parametrize("name", ["paper_retain", "paper_recency"])
def test_open_questions_at_paper_size_are_planned_without_a_network(name, tmp_path, no_network):
    study = config_of(read_study_file(STUDIES / f"{name}.yaml"))
    with quick_hub():
        runs = plan(study, tmp_path / "store", Resolver().resolve, Unread())
    assert (*stage_runs(study, runs), sum(run.kind == "unlearn" for run in runs)) == OPEN[name]
    if name == "paper_retain":
        found = {run.name: run.config["model"]["init_args"]["retain"] for run in runs if run.kind == "unlearn"}
        assert found["seed0/p4/npo"] is None
        assert (found["seed0/p4/npo-kl"]["loss"], found["seed0/p4/npo-kl"]["data"]["init_args"]["batch_size"]) == ("kl", 128)


def test_the_papers_study_on_data_that_can_be_read(tmp_path, no_network, monkeypatch):
    monkeypatch.setattr(HfApi, "model_info", lambda *args, **kwargs: SimpleNamespace(sha="a" * 40))
    file = tmp_path / "rows.jsonl"
    row = {"instruction": "Do it.", "output": "Done.", "question": "How many?", "answer": "#### 2"}
    file.write_text(f"{json.dumps(row)}\n" * 8000)
    read = {**read_study_file(STUDIES / "paper_llama3.2-1b.yaml"), "source": str(file)}
    read["stages"]["math"]["data"]["init_args"] |= {"train_examples": 8000, "held_out_source": str(file)}
    study = config_of(read)
    with quick_hub():
        runs = plan(study, tmp_path / "store", Resolver().resolve, Unread())
    estimates, text = shown(study, runs, tmp_path / "study", throughput=1000.0)
    assert not any(run.key.startswith(run_key.UNREAD) for run in runs)
    assert len(list((tmp_path / "study").glob("plan/*.yaml"))) == 25
    assert [estimates[f"seed0/{name}"].steps for name in ("inst", "inst-tofu", "inst-tofu-math", "safety")] == [320, 128, 126, 72]
    # Rank 64 on q and o (2048 x 2048), v (2048 x 512) and the MLP (3 of 2048 x 8192), 16 layers, 4 bytes.
    adapter = 4 * 16 * 64 * (2 * 4096 + 2560 + 3 * 10240)
    assert estimates["seed0/inst"].result_bytes == adapter
    assert estimates["seed0/inst"].model_bytes == 4 * PARAMETERS["meta-llama/Llama-3.2-1B"]
    assert f"{25 * adapter / 1e9:.4g} GB for adapters, instead of 123.6 GB for whole models" in text
    unlearning = runs[-1].config
    assert unlearning["data"]["init_args"]["batch_size"] == 128
    assert unlearning["model"]["init_args"]["optimizer"]["init_args"]["betas"] in ([0.9, 0.999], (0.9, 0.999))


def test_only_the_hub_is_excused(tmp_path, corpus, questions):
    Path(questions).unlink()
    broken = config_of(small(corpus, questions))
    with pytest.raises(FileNotFoundError, match="no data file"):
        plan(broken, tmp_path, Resolver().resolve, Unread())


def test_executing_never_falls_back(tmp_path, no_network):
    study = config_of(read_study_file(PAPER[0]))
    with quick_hub(), pytest.raises(HubError, match="could not be read"):
        plan(study, tmp_path, Resolver().resolve)


def test_a_speed_of_nothing_is_refused(corpus, questions, tmp_path):
    written = small(corpus, questions, positions=[1], retrained=False)
    with pytest.raises(ValueError, match="--throughput must be above 0"):
        print_plan(config_of(written), tree(written, tmp_path), tmp_path, Console(quiet=True), throughput=0)
