"""Studies: the tree, its keys, running, skipping, failing; with LoRA and with full fine-tuning."""

import io
import json
import re
from contextlib import suppress
from functools import partial
from pathlib import Path

import psutil
import pytest
import yaml
from forked import Forked, together, until
from rich.console import Console
from study_runs import ADAMW

from unlearn_lightning import preemption
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.main import main
from unlearn_lightning.records import read_records, read_run, read_study
from unlearn_lightning.runs import run_key
from unlearn_lightning.study import workers
from unlearn_lightning.study.changes import explain_changes
from unlearn_lightning.study.command import chosen
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.study_config import StudyConfig, merged
from unlearn_lightning.study.study_file import read_study_file
from unlearn_lightning.study.tree import plan
from unlearn_lightning.study.unread import Unread, quick_hub
from unlearn_lightning.study.work import RunFailed, Work

CONFIGS = Path(__file__).parents[1] / "configs"


def small(corpus, questions, **changes):
    """Two stages and the forget stage, two objectives, 2 steps each."""
    data = {
        "class_path": "ChatStage",
        "init_args": {"source": questions, "held_out_source": questions, "batch_size": 10, "max_length": 200},
    }
    scratch = {"hidden": 32, "layers": 1, "intermediate": 32, "heads": 2, "vocab_size": 300, "corpus": [corpus]}
    study = {
        "name": "small",
        "forget": "safety",
        "order": ["inst", "math"],
        "stages": {
            name: {"data": merged(data, {"init_args": {"prompt_template": name + ": {prompt}"}})} for name in ("inst", "math", "safety")
        },
        "objectives": {"ga": {"model": {"class_path": "GradientAscent"}}, "npo": {"model": {"class_path": "NPO"}}},
        "backbone": {"scratch": scratch, "lora": None},
        "base": {"data": data, "trainer": {"max_epochs": 1}},
        "common": {"trainer": {"accelerator": "cpu", "devices": 1}, "model": {"init_args": {"optimizer": ADAMW}}},
        "probes": {
            "forget": {"class_path": "ForgetLikelihood", "init_args": {"limit": 2, "every_n_steps": 1, "label": "Ann"}},
            "retain": {"class_path": "RetainLikelihood", "stage": "inst", "init_args": {"limit": 2, "every_n_steps": 1}},
            "divergence": {"class_path": "PathDivergence", "init_args": {"limit": 3, "every_n_steps": 1}},
        },
        "stage_probes": ["divergence"],
        "threads": 1,
    }
    return merged(study, changes)


def config_of(settings):
    lists = {k: tuple(v) for k, v in settings.items() if isinstance(v, list)}
    paths = {name: tuple(path) for name, path in settings["paths"].items()} if settings.get("paths") is not None else None
    return StudyConfig(**{**settings, **lists, "paths": paths})


def tree(settings, store):
    with quick_hub():
        return plan(config_of(settings), store, Resolver().resolve, Unread())


STUDIES = sorted((CONFIGS / "studies").glob("*.yaml"))
# Studies that are like these have the same stages, which is tested below without planning them; test_plan.py plans the paper's.
FOUR_PATHS = [
    file for file in STUDIES if {"order", "name"} <= yaml.safe_load(file.read_text()).keys() and "paths" not in read_study_file(file)
    and not file.stem.startswith("paper")
]  # fmt: skip


@pytest.mark.parametrize("file", FOUR_PATHS, ids=lambda f: f.stem)
def test_shared_prefixes_are_planned_once(file, tmp_path, request):
    settings = read_study_file(file)
    assert f"#   unlearn study configs/studies/{file.name}" in file.read_text()
    if settings["source"] == "files":
        request.getfixturevalue("data_root")
    runs = tree({**settings, "seeds": [1, 2]}, tmp_path)
    per_seed = [run for run in runs if run.tags["seed"] == 1]
    stages = [run for run in per_seed if run.kind == "stage" and run.tags["path"]]
    # Four paths of four stages and the retrained model's three are 19 stages; as a tree they are 13.
    assert len(stages) == 13
    assert len([run for run in per_seed if run.kind == "unlearn"]) == 4 * len(settings["objectives"])
    assert len({run.key for run in runs}) == len(runs) == 2 * len(per_seed)
    ends = {run.tags["p"]: run.tags["path"] for run in stages if run.tags["p"] or run.tags.get("retrained")}
    assert ends[None] == ["inst", "tofu", "math"]
    assert ends[3] == ["inst", "tofu", "safety", "math"]


VARIANTS = [file.stem for file in STUDIES if file.stem.partition("_")[2] in ("learning_rates", "schedules", "retain", "steps")]


@pytest.mark.parametrize("variant", [*VARIANTS, "demo_adapters"])
def test_variants_of_objectives_share_the_stages_of_their_study(variant):
    original = "demo" if variant.startswith("demo") else "paper_llama3.2-1b"
    mine, theirs = (read_study_file(CONFIGS / "studies" / f"{name}.yaml") for name in (variant, original))
    assert {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)} <= {"name", "objectives", "seeds"}
    tags = [tuple(settings["tags"].items()) for settings in mine["objectives"].values()]
    assert len(set(tags)) == len(tags), "variants must be told apart"
    for settings in mine["objectives"].values():
        own, base = settings["model"], theirs["objectives"][settings["tags"]["objective"]]["model"]
        assert own["class_path"] == base["class_path"]
        assert own.get("init_args", {}).items() >= base.get("init_args", {}).items()
        if lr := settings["tags"].get("lr"):
            assert own["init_args"]["optimizer"] == {"init_args": {"lr": lr}}


def test_the_recency_study_adds_stages_to_the_demos_last_path(tmp_path):
    settings = {**read_study_file(CONFIGS / "studies/demo_recency.yaml"), "seeds": [1]}
    demo = {**read_study_file(CONFIGS / "studies/demo.yaml"), "seeds": [1]}
    runs, theirs = tree(settings, tmp_path), tree(demo, tmp_path)
    ends = {run.tags["path_name"]: run.tags["path"] for run in runs if run.kind == "unlearn"}
    last = ["inst", "tofu", "math", "safety"]
    assert [path[:4] == last and len(path) - 4 for name, path in ends.items() if name.startswith("p4")] == [0, 1, 2, 3, 4, 5]
    assert {run.key for run in theirs if run.kind == "unlearn"} < {run.key for run in runs}
    # A further stage is another instance: other texts, not the same ones again.
    data = [run.inputs["data"] for run in runs if run.kind == "stage" and run.tags["path"][:4] == last]
    assert len(set(data)) == len(data) == 6


def keys(settings, store):
    return {run.name: run.key for run in tree(settings, store)}


def test_keys_change_with_what_decides_the_result_and_with_nothing_else(corpus, questions, tmp_path):
    before = keys(small(corpus, questions), tmp_path)
    neutral = {"trainer": {"log_every_n_steps": 7, "enable_model_summary": True}, "data": {"init_args": {"micro_batch_size": 5}}}
    neutral = small(corpus, questions, common=neutral)
    assert keys(neutral, tmp_path / "elsewhere") == before

    def changed(**changes):
        after = keys(small(corpus, questions, **changes), tmp_path)
        return {name for name in before if before[name] != after[name]}

    rate = {"init_args": {"optimizer": {**ADAMW, "init_args": {"lr": 1e-9}}}}
    assert changed(objectives={"npo": {"model": rate}}) == {f"seed0/p{p}/npo" for p in (1, 2, 3)}
    math = {name for name in before if "math" in name} | {name for name in before if "/p" in name}
    assert changed(stages={"math": {"model": rate}}) == math
    assert changed(backbone={"scratch": {"hidden": 48}}) == set(before)
    # An edited data file is noticed by its content.
    Path(questions).write_text(Path(questions).read_text().replace("Ann", "Bob"))
    run_key._data_content.cache_clear()
    assert keys(small(corpus, questions), tmp_path) != before


def test_a_study_runs_once_and_then_only_what_is_missing(corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("small.yaml").write_text(yaml.safe_dump(small(corpus, questions)))
    assert main(["study", "small.yaml", "--jobs", "1"]) == 0
    first = capsys.readouterr().out
    runs = read_study(Path("runs/small"))["runs"]
    assert len(runs) == 1 + 8 + 6
    for run in runs:
        assert read_run(Path("runs/small") / run["folder"])["key"] == run["key"]
    assert "15 runs executed" in " ".join(first.split())
    assert Path("runs/small/report/index.html").is_file()

    unlearned = {(r["tags"]["p"], r["tags"]["objective"]): Path("runs/small") / r["folder"] for r in runs if r["kind"] == "unlearn"}
    start = {p: read_records(folder, "forget")[0]["metrics"] for (p, objective), folder in unlearned.items() if objective == "ga"}
    assert len({m["forget/label_log_lik"] for m in start.values()}) == 3, "every path starts from a model of its own"
    for (p, _), folder in unlearned.items():
        steps = read_records(folder, "divergence")
        assert "divergence/retrained" in steps[0]["metrics"]
        assert ("divergence/p1" in steps[1]["metrics"]) == (p > 1)

    assert main(["study", "small.yaml"]) == 0
    assert "0 runs executed, 15 were finished already" in " ".join(capsys.readouterr().out.split())
    assert main(["study", "small.yaml", "--name", "again"]) == 0
    assert "0 runs executed, 15 were finished already" in " ".join(capsys.readouterr().out.split())


def test_a_failed_run_holds_up_its_descendants_only(corpus, questions, tmp_path):
    broken = small(corpus, questions, stages={"math": {"data": {"init_args": {"batch_size": 10, "micro_batch_size": 3}}}}, retrained=False)
    broken["objectives"].pop("ga")
    study = config_of(broken)
    runs = tree(broken, tmp_path / "store")
    log = io.StringIO()
    work = Work(study, runs, tmp_path / "study", Console(file=log, width=80))
    assert Local(jobs=1).launch(work)
    # A log file, which is no terminal, has a line for each run as it ends.
    lines = [line for line in log.getvalue().splitlines() if line.startswith("seed0/")]
    assert re.fullmatch(rf"seed0/\S+ finished \(1 of {len(runs)} runs, (less than a minute|about .+) left\)", lines[0]), lines
    assert any(line.startswith("seed0/inst-math failed: ValueError: batch_size 10 must be a multiple") for line in lines)
    assert len(lines) == len(work.done) + len(work.failed), lines
    with pytest.raises(RunFailed) as failure:
        work.check()
    text = str(failure.value)
    assert "seed0/inst-math: ValueError: batch_size 10 must be a multiple of micro_batch_size 3" in text
    assert "seed0/p3/npo: waits for a run that failed" in text
    finished = {run.name for run in runs if (run.folder / "run.json").is_file() and read_run(run.folder)["status"] == "finished"}
    assert finished == {"seed0/base", "seed0/inst", "seed0/safety", "seed0/safety-inst", "seed0/inst-safety"}

    # How a run is cut into micro-batches decides nothing, so the mended study has the same keys; what failed waits to be asked for.
    broken["stages"]["math"]["data"]["init_args"]["micro_batch_size"] = 5
    mended = tree(broken, tmp_path / "store")
    assert [run.key for run in mended] == [run.key for run in runs]
    wanted = chosen(mended, None, "seed0/p3/npo")
    work = Work(config_of(broken), mended, tmp_path / "study", Console(quiet=True), wanted)
    assert Local(jobs=1).launch(work)
    assert list(work.failed.values()) == ["ValueError: " + text.partition("seed0/inst-math: ValueError: ")[2].partition("\n")[0]]
    work = Work(config_of(broken), mended, tmp_path / "study", Console(quiet=True), wanted, retry_failed=True)
    assert Local(jobs=1).launch(work)
    work.check()
    assert read_run(wanted[0].folder)["status"] == "finished"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"forget": "sfaety"}, "names the stage 'sfaety'"),
        ({"order": ["inst", "inst"]}, "each once"),
        ({"positions": [4]}, "between 1 and 3"),
        ({"seeds": []}, "at least one seed"),
        ({"stage_probes": ["nothing"]}, r"names \['nothing'\]"),
    ],
)
def test_impossible_studies_are_refused(changes, message, corpus, questions):
    with pytest.raises(ValueError, match=message):
        config_of(small(corpus, questions, **changes))


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"sedes": [1]}, "there is no key 'sedes'. Did you mean 'seeds'?"),
        ({"objectives": {"npo": {"model": {"class_path": "NPo"}}}}, "there is no class 'NPo'. Did you mean 'NPO'?"),
        ({"unlearning": {"trainr": {"max_epochs": 1}}}, "there is no key 'trainr'. Did you mean 'trainer'?"),
    ],
)
def test_a_mistyped_name_in_a_study_gets_one_line(changes, hint, corpus, questions, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("wrong.yaml").write_text(yaml.safe_dump(small(corpus, questions, **changes)))
    with suppress(SystemExit):
        assert main(["study", "wrong.yaml", "--plan"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"unlearn study: {hint}")
    assert said.count("\n") == 1


def test_variants_of_an_objective_carry_its_name(corpus, questions, tmp_path):
    fast = {"tags": {"objective": "npo", "lr": 0.1}, "model": {"class_path": "NPO", "init_args": {"optimizer": {"init_args": {"lr": 0.1}}}}}
    runs = {run.name: run for run in tree(small(corpus, questions, objectives={"npo_fast": fast}), tmp_path)}
    assert runs["seed0/p1/npo_fast"].tags == {"seed": 0, "path": ["safety", "inst", "math"], "p": 1, "objective": "npo", "lr": 0.1}
    assert runs["seed0/p1/npo_fast"].config["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.1
    assert runs["seed0/p1/npo_fast"].key != runs["seed0/p1/npo"].key


def test_a_missing_study_file(capsys):
    assert main(["study", "configs/studies/none.yaml"]) == 2
    assert "There is no configuration" in capsys.readouterr().err


def test_merging_settings():
    assert merged({"a": {"x": 1, "y": [1]}}, {"a": {"y": [2]}}) == {"a": {"x": 1, "y": [2]}}
    other = merged({"m": {"class_path": "A", "init_args": {"x": 1}}}, {"m": {"class_path": "B", "init_args": {"z": 2}}})
    assert other == {"m": {"class_path": "B", "init_args": {"z": 2}}}


def test_study_json_is_relative(corpus, questions, tmp_path):
    runs = tree(small(corpus, questions), tmp_path / "runs/store")
    assert runs[0].entry(tmp_path / "runs/small")["folder"] == f"../store/{runs[0].folder.name}"
    json.dumps([run.entry(tmp_path) for run in runs])


@pytest.mark.parametrize("store", ["runs/store", "store", "scratch/store", "linked/store"])
def test_runs_are_found_through_links(store, tmp_path):
    """`runs` is often a link to a large disk: the entry in study.json leads to the run where the system follows it."""
    for folder in ("disk/here/runs", "scratch/store", "disk/other"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "runs").symlink_to(tmp_path / "disk/here/runs")
    (tmp_path / "linked").symlink_to(tmp_path / "disk/other")
    study, run = tmp_path / "runs/small", tmp_path / store / "NPO-1"
    for folder in (study, run):
        folder.mkdir(parents=True)
    entry = Run("a", "stage", "key", run, {}).entry(study)["folder"]
    assert (study / entry).samefile(run)
    assert not Path(entry).is_absolute()
    assert entry == "../store/NPO-1" or store != "runs/store"


def test_until_and_only(corpus, questions, tmp_path):
    runs = tree(small(corpus, questions), tmp_path)
    assert {run.name for run in chosen(runs, "inst", None)} == {"seed0/inst", "seed0/safety-inst"}
    assert {run.name for run in chosen(runs, None, "seed0/p3/*")} == {"seed0/p3/ga", "seed0/p3/npo"}
    with pytest.raises(ValueError, match=r"--until nothing fits no run. The runs are: seed0/base"):
        chosen(runs, "nothing", None)


def test_a_changed_key_is_explained(corpus, questions, tmp_path):
    before = {"runs": [run.entry(tmp_path) for run in tree(small(corpus, questions), tmp_path / "store")]}
    assert explain_changes(before, tree(small(corpus, questions), tmp_path / "store")) == []
    slower = small(corpus, questions, stages={"inst": {"model": {"init_args": {"optimizer": {**ADAMW, "init_args": {"lr": 1e-9}}}}}})
    lines = explain_changes(before, tree(slower, tmp_path / "store"))
    # inst is trained on three paths: alone (with math, safety, and both behind it), and after safety.
    assert [line.split(":")[0] for line in lines] == ["seed0/inst", "seed0/safety-inst"]
    assert "changed objective, optimizer or schedule; it and the 8 runs that start from it are trained again" in lines[0]
    Path(questions).write_text(Path(questions).read_text().replace("Ann", "Eve"))
    run_key._data_content.cache_clear()
    (first, *_) = explain_changes(before, tree(small(corpus, questions), tmp_path / "store"))
    assert first.startswith("seed0/base: changed data (the texts, batch size, length or order)")


def adapters(store):
    return {f.parent.parent.name: f.read_bytes() for f in store.glob("*/adapter/adapter_model.safetensors")}


@pytest.fixture
def warm_workers(monkeypatch):
    """Workers of a forked study are forked from it, with its imports; test_workers.py has the spawned ones."""
    open_worker = workers._open_worker

    def listening(*given):
        # The study that it was forked from listens already, and a worker does so anew.
        preemption._listening = False
        open_worker(*given)

    monkeypatch.setattr(workers, "START", "fork")
    monkeypatch.setattr(workers, "_open_worker", listening)


@pytest.mark.timeout(600)
def test_killed_and_stopped_the_same_command_ends_with_the_same_adapters(corpus, questions, tmp_path, monkeypatch, warm_workers):
    """`kill -9` of a study's process, whose workers end with it; SIGTERM to it alone; and then the uninterrupted study's result."""
    settings = small(
        corpus, questions, backbone={"lora": {"rank": 2, "alpha": 4, "dropout": 0.1}}, retrained=False, positions=[1, 3],
        common={"checkpoint_every_n_steps": 1}, fine_tuning={"trainer": {"max_epochs": 2}}, base={"trainer": {"max_epochs": 30}},
    )  # fmt: skip
    settings["objectives"].pop("ga")
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(settings))
    place = tmp_path / "killed"
    place.mkdir()

    def start():
        return Forked(lambda: main(["study", str(file), "--jobs", "2"]), place)

    def checkpoints():
        return {path: path.stat().st_mtime for path in place.glob("runs/store/*/checkpoints/last.ckpt")}

    process = start()
    until(checkpoints, process)
    helpers = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert len(helpers) >= 1
    assert not psutil.wait_procs(helpers, timeout=10)[1], "they end with their parent"

    before, process = checkpoints(), start()
    until(lambda: checkpoints() != before, process)
    helpers = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    assert process.wait() == 143, process.stderr()
    assert process.stderr() == f"unlearn: stopped by SIGTERM. To go on: unlearn study {file} --jobs 2\n"
    assert not psutil.wait_procs(helpers, timeout=10)[1]
    runs = [json.loads(path.read_text()) for path in place.glob("runs/store/*/run.json")]
    assert {run["status"] for run in runs} <= {"stopped", "finished"}
    assert any(run["status"] == "stopped" for run in runs)

    process = start()
    assert (process.wait(), process.stderr()) == (0, "")
    (tmp_path / "straight").mkdir()
    monkeypatch.chdir(tmp_path / "straight")
    assert main(["study", str(file), "--jobs", "1"]) == 0
    expected, found = adapters(tmp_path / "straight/runs/store"), adapters(place / "runs/store")
    assert len(expected) == 6 + 2
    assert found == expected
    for record in (tmp_path / "straight/runs/store").glob("*/records/*/*.json"):
        other = place / record.relative_to(tmp_path / "straight")
        mine, theirs = (json.loads(p.read_text())["examples"] for p in (record, other))
        assert mine == theirs, record


def test_two_processes_on_one_study_share_the_work(corpus, questions, tmp_path):
    file = tmp_path / "small.yaml"
    settings = small(corpus, questions, retrained=False, positions=[1, 3])
    settings["objectives"].pop("ga")
    file.write_text(yaml.safe_dump(settings))
    study = partial(main, ["study", str(file), "--jobs", "1"])
    together(study, study, cwd=tmp_path)
    folder = tmp_path / "runs/small"
    for run in read_study(folder)["runs"]:
        log = (folder / run["folder"] / "log.txt").read_text()
        assert log.count("stopped: `max_") == 1, f"{run['name']} was trained twice"


def test_a_worker_that_dies_is_replaced(corpus, questions, tmp_path, warm_workers):
    """Killed by the system (out of memory, say) and not by an error: its run goes on from its checkpoint in a new worker."""
    file = tmp_path / "small.yaml"
    settings = small(corpus, questions, retrained=False, positions=[3], common={"checkpoint_every_n_steps": 1})
    file.write_text(yaml.safe_dump({**settings, "base": {**settings["base"], "trainer": {"max_epochs": 20}}}))
    process = Forked(lambda: main(["study", str(file), "--jobs", "2", "--only", "seed0/base"]), tmp_path)
    until(lambda: list(tmp_path.glob("runs/store/*/checkpoints/last.ckpt")), process)
    # The checkpoint's owner writes the log of its run.
    helpers = psutil.Process(process.pid).children(recursive=True)
    (victim,) = [helper for helper in helpers if any(file.path.endswith("log.txt") for file in helper.open_files())]
    victim.kill()
    assert process.wait() == 0, process.stderr()
    (run,) = (run for run in read_study(tmp_path / "runs/small")["runs"] if run["name"] == "seed0/base")
    log = (tmp_path / "runs/small" / run["folder"] / "log.txt").read_text()
    assert "Restor" in log, "the new worker began again instead of going on"
