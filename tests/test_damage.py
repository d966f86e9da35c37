"""What is read is checked: a file that was cut, edited or overwritten is named in one line, whatever the file and the damage."""

import itertools
import json
import os
import random
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from fault_cases import DAMAGES, FILES, UNSEEN, can_mount, damage_cases, damaged, disk_cases, kill_cases, load_model, make_runs, value_cases
from study_runs import fit, settings
from test_report_study_data import StudyWriter

from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.main import main
from unlearn_lightning.records import is_finished, read_run, read_study, write_json
from unlearn_lightning.records.digests import digests
from unlearn_lightning.records.disk import DiskFull, writing
from unlearn_lightning.records.yaml_files import load_yaml, read_yaml
from unlearn_lightning.report.command import report
from unlearn_lightning.runs.content import refuse_changed, refuse_changed_place
from unlearn_lightning.runs.moved import read_config
from unlearn_lightning.runs.run_folder import claim
from unlearn_lightning.study.changes import refuse_other_store

GOOD = {"named", "harmless", "equal"}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return make_runs(tmp_path_factory.mktemp("damage") / "runs")


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the finished run, with its times."""
    return Path(shutil.copytree(runs / "whole", tmp_path / "copies" / "whole"))


@pytest.mark.parametrize("kind", FILES)
def test_a_damaged_file_is_named_or_does_no_harm(kind, runs):
    found = list(damage_cases(runs, random.Random(kind), {kind: FILES[kind]}))
    assert len(found) >= 5
    assert [case for case in found if case[1] not in GOOD] == []
    # A reference is computed again, and what is no metric or record is told by its digest.
    assert kind == "reference" or any(case[1] == "named" for case in found)


def test_a_wrong_value_in_a_json_file_is_named_or_does_no_harm(runs):
    assert [case for case in value_cases(runs, random.Random(0), 2) if case[1] not in GOOD] == []


# --- digests ------------------------------------------------------------------------------------------------------------------------------


def permute_ids(path):
    tokens = json.loads(path.read_text())
    vocabulary = tokens["model"]["vocab"]
    tokens["model"]["vocab"] = dict(zip(vocabulary, [*list(vocabulary.values())[1:], next(iter(vocabulary.values()))], strict=True))
    path.write_text(json.dumps(tokens))


def test_run_json_has_a_digest_of_all_that_the_run_made(runs):
    about = read_run(runs / "whole")
    made = {path.relative_to(runs / "whole").as_posix() for path in (runs / "whole").rglob("*") if path.is_file()}
    recorded = {f"model/{name}" for name in about["result"]["files"]} | about["files"].keys()
    assert made - recorded == {"run.json", "logged_as.json"} & made
    assert {"config.yaml", "metrics.csv", "records/retain/000000.json", "model/tokenizer.json", "model/model.safetensors"} <= recorded
    assert all(set(facts) == {"sha256", "size", "mtime_ns"} for facts in about["files"].values())


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "config.json"])
def test_a_run_starts_from_no_result_that_was_changed(name, runs, copied):
    config = settings(str(runs / "corpus.jsonl"), str(runs / "questions.jsonl"), copied.parent / "next")
    config["model"]["init_args"]["backbone"] = {"model": str(copied / "model"), "lora": {"rank": 2, "alpha": 2}}
    file = copied / "model" / name
    if name == "tokenizer.json":
        permute_ids(file)
    else:
        file.write_bytes(DAMAGES["flipped"](file.read_bytes(), random.Random(0)))
    with pytest.raises(ValueError, match=rf"its result changed since then \({name}\)"):
        fit(config)
    assert not (copied.parent / "next").exists()


def test_a_copy_with_other_times_is_as_good(copied):
    for path in copied.rglob("*"):
        os.utime(path, ns=(1, 1))
    refuse_changed_place(str(copied / "model"))
    refuse_changed(copied, read_run(copied)["key"])


@pytest.mark.parametrize("lacks", ["key", "kind", "steps", "result", "all"])
def test_a_finished_run_whose_run_json_lacks_something_is_refused_by_name(lacks, copied):
    about = {name: value for name, value in read_run(copied).items() if name != lacks}
    (copied / "run.json").write_text(json.dumps(about if lacks != "all" else {"format": 1, "status": "finished"}))
    with pytest.raises(ValueError, match=r"run\.json (says 'finished' and lacks|does not say what the run made)"):
        refuse_changed(copied)
    with pytest.raises(ValueError, match=r"run\.json"):
        refuse_changed_place(str(copied / "model"))
    with pytest.raises(ValueError, match=r"run\.json|other settings"):
        claim(copied, "5b1c")


def test_another_runs_folder_under_this_ones_name_is_refused(copied):
    with pytest.raises(ValueError, match="holds another run than its name says"):
        refuse_changed(copied, "0" * 64)


def test_a_study_verifies_all_files_of_its_runs_and_names_what_differs(copied, tmp_path, capsys):
    key = read_run(copied)["key"]
    write_json(tmp_path / "s/study.json", {"name": "s", "runs": [
        {"key": key, "folder": "../copies/whole", "kind": "stage", "name": "seed0/base", "parents": [], "tags": {}},
        {"key": "new", "folder": "../copies/new", "kind": "stage", "name": "seed0/inst", "parents": [key], "tags": {}},
    ]})  # fmt: skip
    assert main(["status", str(tmp_path / "s"), "--verify"]) == 0
    assert "files of 1 runs were hashed: none differs." in capsys.readouterr().out
    for name in ("metrics.csv", "records/retain/000000.json", "model/tokenizer.json"):
        file, status = copied / name, (copied / name).stat()
        file.write_bytes(file.read_bytes()[:-2] + b"xx")
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))  # Neither size nor time tell.
    (copied / "model/added.json").write_text("{}")
    (copied / "config.yaml").unlink()
    for folder in (tmp_path / "s", copied):
        assert main(["status", str(folder), "--verify"]) == 1
        told = capsys.readouterr().out
        for line in (
            "metrics.csv differs from what the run wrote", "records/retain/000000.json differs", "model/tokenizer.json differs",
            "model/added.json was added", "config.yaml is gone", "5 differ.",
        ):  # fmt: skip
            assert line in told
    (tmp_path / "nothing").mkdir()
    assert main(["status", str(tmp_path / "nothing"), "--verify"]) == 2


def test_a_stopped_runs_checkpoint_is_verified_and_refused(runs, capsys):
    with damaged(runs / "stopped/checkpoints/last.ckpt", "flipped", random.Random(1)):
        assert main(["status", str(runs / "stopped"), "--verify"]) == 1
        assert "last.ckpt is damaged" in capsys.readouterr().out
        with pytest.raises(ValueError, match=r"The checkpoint .*last\.ckpt is damaged .* delete it to train this run from its beginning"):
            fit(settings(str(runs / "corpus.jsonl"), str(runs / "questions.jsonl"), runs / "stopped", checkpoint_every_n_steps=2))
    assert not is_finished(runs / "stopped")


def test_a_report_leaves_out_a_record_that_was_edited(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unlearn_lightning.report.report.save_figures", lambda *_: [])
    writer = StudyWriter(tmp_path)
    curve = {0: 0.0, 2: -1.0}
    run = writer.unlearn(1, 1, "npo", label=curve, phrases=curve, tofu=curve, accuracy=curve)
    about = json.loads((run / "run.json").read_text())
    facts = digests(run, ["records/forget/000000.json", "records/forget/000002.json"])
    facts["records/forget/000002.json"]["size"] += 1
    (run / "run.json").write_text(json.dumps({**about, "files": facts}))
    assert report([str(writer.write())]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "seed1/p1/npo: a record is left out, as records/forget/000002.json is not as its run wrote it" in told


def test_status_shows_a_damaged_run_json_and_the_other_runs(copied, tmp_path, capsys):
    entry = {"key": "k", "folder": "../copies/whole", "kind": "stage", "name": "a\x1b[31m", "parents": [], "tags": {}}
    write_json(tmp_path / "s/study.json", {"name": "s", "runs": [entry, {**entry, "key": "m", "folder": "../copies/m", "name": "b"}]})
    (copied / "run.json").write_text('{"format": 1, "status": "finished"}')
    assert main(["status", str(tmp_path / "s")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "lacks kind, steps" in told
    assert "1 failed, 1 ready, of 2 runs" in told
    assert "\x1b[31m" not in told


# --- places -------------------------------------------------------------------------------------------------------------------------------


def test_the_configuration_of_a_moved_or_copied_run_is_about_the_copy(runs, copied):
    assert read_config(runs / "whole")["run_folder"] == str(runs / "whole")
    assert read_config(copied)["run_folder"] == str(copied)
    _, file = prepared(["-c", str(copied / "config.yaml")])
    assert json.loads(file)["run_folder"] == str(copied)
    assert prepared(["-c", str(runs / "whole/config.yaml")])[1] == str(runs / "whole/config.yaml"), "a run that lies where it was"
    # Beside it lie the runs that it starts from, where the whole store was moved.
    shutil.copytree(runs / "lora", copied.parent / "lora")
    assert read_config(copied.parent / "lora")["model"]["init_args"]["backbone"]["model"] == str(copied / "model")
    assert read_config(copied)["data"]["init_args"]["source"] == str(runs / "questions.jsonl"), "what is elsewhere stays there"


def test_a_configuration_that_only_looks_like_a_runs_is_left_alone(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"run_folder": "/elsewhere/run", "model": {}, "data": {}, "trainer": {}}))
    assert prepared(["-c", str(tmp_path / "config.yaml")])[1] == str(tmp_path / "config.yaml")


def test_a_report_and_the_status_find_a_renamed_store_or_say_where_they_looked(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("unlearn_lightning.report.report.save_figures", lambda *_: [])
    writer = StudyWriter(tmp_path)
    curve = {0: 0.0, 2: -1.0}
    run = writer.unlearn(1, 1, "npo", label=curve, phrases=curve, tofu=curve, accuracy=curve)
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "key": run.name}))
    study = writer.write()
    (tmp_path / "store").rename(tmp_path / "kept")
    assert report([str(study)]) == 0
    assert main(["status", str(study)]) == 0
    assert "1 finished, of 1 run" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "store/other").mkdir(parents=True)
    (tmp_path / "store/other/run.json").write_text('{"format": 1, "key": "k"}')
    assert main(["status", str(study)]) == 0
    assert "1 finished, of 1 run" in " ".join(capsys.readouterr().out.split()), "another store stands where it was"
    shutil.rmtree(tmp_path / "store")
    (tmp_path / "kept").rename(tmp_path / ".hidden_elsewhere")
    shutil.rmtree(tmp_path / ".hidden_elsewhere")
    assert report([str(study)]) == 2
    told = " ".join(capsys.readouterr().err.split())
    assert f"1 of 1 runs are not where study.json says, as there is no folder {tmp_path / 'store'}. They were sought in" in told


def test_a_study_whose_store_was_renamed_is_not_trained_again_unasked(tmp_path):
    writer = StudyWriter(tmp_path)
    run = writer.unlearn(1, 1, "npo", label={0: 0.0, 2: -1.0})
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "key": run.name}))
    study = writer.write()
    planned = [SimpleNamespace(key=run.name, folder=run)]
    refuse_other_store(study, read_study(study), planned)
    (tmp_path / "store").rename(tmp_path / "kept")
    with pytest.raises(ValueError, match=r"1 finished runs of this study lie in .*kept, .* Go on from them with --store"):
        refuse_other_store(study, read_study(study), planned)
    # Named in the command, the renamed store is the study's.
    refuse_other_store(study, read_study(study), [SimpleNamespace(key=run.name, folder=tmp_path / "kept" / run.name)])
    # Another store that took its place changes nothing.
    (tmp_path / "store").mkdir()
    with pytest.raises(ValueError, match=r"lie in .*kept, and not in .*store\. Go on from them with --store .*kept"):
        refuse_other_store(study, read_study(study), planned)


# --- limits -------------------------------------------------------------------------------------------------------------------------------


def bomb(levels=16):
    names = "abcdefghijklmnopq"
    lines = [f"{one}: &{one} [{', '.join([f'*{before}'] * 9)}]" for before, one in itertools.pairwise(names[:levels])]
    return "\n".join(["a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]", *lines])


@pytest.mark.parametrize(
    "text",
    [bomb(), "a: &a [*a]", "[" * 5_000, "[" * 200_000 + "]" * 200_000, "{a: " * 3_000, "- " * 500 + "x", "x: 2024-99-99", "1" * 9_999,
     "a: &a {b: &b {<<: *a}}", "? [a]\n: b"],
)  # fmt: skip
@pytest.mark.timeout(20)
def test_yaml_that_has_no_end_ends_in_a_line(text, tmp_path):
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"bad\.yaml is not YAML that can be read: .* Mend it"):
        read_yaml(tmp_path / "bad.yaml")


def test_every_command_reads_yaml_within_limits(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(bomb())
    for words in (["fit", "-c"], ["study"], ["memory"], ["study", "configs/studies/demo.yaml", "--logger"]):
        assert main([*words, str(tmp_path / "bad.yaml")]) in (1, 2)
        assert "bad.yaml is not YAML that can be read" in capsys.readouterr().err


def test_aliases_as_people_write_them_are_read():
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: [*a, *a]") == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": [{"x": 1}] * 2}


# --- disks and kills --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [OSError(28, "No space left on device"), OSError(122, "Disk quota exceeded"), RuntimeError("No space left on device (os error 28)")],
)
def test_a_full_disk_is_named_with_its_place(error, tmp_path):
    said = rf"No space left on the disk of {tmp_path / 'model'} \(\d+ MB free of \d+ MB\). Make room"
    with pytest.raises(DiskFull, match=said), writing(tmp_path / "model"):
        raise error
    with pytest.raises(PermissionError), writing(tmp_path):
        raise PermissionError(13, "Permission denied")


def test_a_run_on_a_disk_that_fills_up_says_so_and_goes_on_with_room(runs, tmp_path):
    if why := can_mount(tmp_path / "disk"):
        pytest.skip(why)
    found = list(disk_cases(tmp_path, runs, [300]))
    assert [case[1] for case in found] == ["named"], found


def test_a_run_that_is_killed_where_it_renames_a_file_ends_as_if_nobody_had(runs, tmp_path):
    found = list(kill_cases(tmp_path, runs, ("replace",), (6,)))
    assert [case for case in found if case[1] != "equal"] == []
    assert len(found) == 1


def test_a_folders_model_is_read_the_same_again(runs):
    assert load_model(runs / "whole/model") == load_model(runs / "whole/model")
    assert set(UNSEEN) < set(DAMAGES)
