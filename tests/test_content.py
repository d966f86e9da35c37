"""A parent's identity is its content: what a run recorded of its result, a folder's files, or a Hub model's commit."""

import copy
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants
from study_runs import settings
from test_study import config_of, small

from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.records import digests, write_json
from unlearn_lightning.runs.content import changed_files, hub_commit, result_of
from unlearn_lightning.runs.run_key import UNREAD, run_key
from unlearn_lightning.sources.readers import HubError
from unlearn_lightning.study.tree import plan
from unlearn_lightning.study.unread import Unread

KEY = "5b1c"
PLACES = ["model", "tokenizer", "chat_template_from", "adapter"]
FILES = {"config.json": "{}", "chat_template.jinja": "{{ messages }}", "model.safetensors": "weights"}


@pytest.fixture(scope="module")
def resolved(corpus):
    return Resolver().resolve(settings(corpus, "world", "run", model={"init_args": {"backbone": {"lora": {}}}}))


@pytest.fixture
def key_from(resolved):
    """Key and parents of a run whose backbone names a place."""

    def found(name, place, **more):
        config = copy.deepcopy(resolved)
        config["data"] |= {"class_path": "unlearn_lightning.data.TofuStage"}
        config["data"]["init_args"] |= {"source": "world", "held_out_source": None}
        config["model"]["init_args"]["backbone"] |= {name: str(place), **more}
        return run_key(config)

    return found


def write_result(run_folder, name="model", status="finished", key=KEY):
    folder = run_folder / name
    folder.mkdir(parents=True)
    for file, text in FILES.items():
        (folder / file).write_text(text)
    write_json(run_folder / "run.json", {"status": status, "key": key, "kind": "stage", "steps": 1, "result": result_of(run_folder)})
    return folder


def edit_template(folder):
    (folder / "chat_template.jinja").write_text("{{ other }}")


def replace_weights(folder):
    (folder / "model.safetensors").write_text("WEIGHTS")
    os.utime(folder / "model.safetensors", ns=(2, 2))


def add_a_file(folder):
    (folder / "generation_config.json").write_text("{}")


def delete_a_file(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize("name", PLACES)
def test_the_result_of_a_run_is_that_run_while_it_is_what_the_run_recorded(name, key_from, tmp_path):
    folder = write_result(tmp_path / "run", "adapter" if name == "adapter" else "model")
    untouched = key_from(name, folder)
    assert untouched[1] == [KEY]
    os.utime(folder / "model.safetensors", ns=(1, 1))
    assert key_from(name, folder) == untouched, "another time with the same content"
    (folder / "README.md").write_text("a card")
    assert key_from(name, folder) == untouched
    for edit in (edit_template, replace_weights, add_a_file, delete_a_file):
        key, _ = key_from(name, folder)
        edit(folder)
        assert key_from(name, folder)[0] != key, edit.__name__
        assert key_from(name, folder)[1] == [], edit.__name__


@pytest.mark.parametrize("name", PLACES)
def test_two_folders_in_one_run_folder_have_two_keys(name, key_from, tmp_path):
    folder = write_result(tmp_path / "run", "adapter" if name == "adapter" else "model")
    other = folder.with_name("other")
    other.mkdir()
    for file in folder.iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    assert key_from(name, other)[0] != key_from(name, folder)[0]
    assert key_from(name, other)[1] == []
    before = key_from(name, other)
    replace_weights(other)
    assert key_from(name, other) != before


@pytest.mark.parametrize("status", ["running", "failed", "cut_short"])
def test_an_unfinished_runs_folder_is_its_content(status, key_from, tmp_path):
    finished, other = write_result(tmp_path / "a"), write_result(tmp_path / "b", status=status)
    elsewhere = tmp_path / "c"
    other.parent.rename(elsewhere)
    assert key_from("model", elsewhere / "model")[1] == []
    assert key_from("model", elsewhere / "model") != key_from("model", finished)


def test_where_a_folder_lies_does_not_count(key_from, tmp_path):
    run, copied = write_result(tmp_path / "run"), tmp_path / "elsewhere"
    before = key_from("model", run)
    run.parent.rename(copied)
    assert key_from("model", copied / "model") == before


def test_files_are_read_again_only_where_size_or_time_changed(tmp_path, monkeypatch):
    folder = write_result(tmp_path / "run")
    monkeypatch.setattr(digests, "sha256", lambda *_: pytest.fail("a file was read"))
    assert changed_files(tmp_path / "run") == []
    (folder / "config.json").write_text('{"a": 1}')
    assert changed_files(tmp_path / "run") == ["config.json"], "another size is another content"


def test_a_study_refuses_a_finished_run_whose_result_was_changed(corpus, questions, tmp_path):
    resolver = Resolver()
    one = {"order": ["inst"], "positions": [1], "retrained": False, "objectives": {}, "probes": {}, "stage_probes": []}
    study = config_of({**small(corpus, questions), **one})

    def planned():
        return plan(study, tmp_path, resolver.resolve)

    runs = planned()
    assert runs[0].name == "seed0/base"
    folder = write_result(runs[0].folder, key=runs[0].key)
    assert [run.key for run in planned()] == [run.key for run in runs]
    edit_template(folder)
    with pytest.raises(ValueError, match=r"is finished, but its result changed since then \(chat_template.jinja\). Delete the run folder"):
        planned()


# --- the Hub -----------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A Hub that says one commit for everything, and an empty cache."""
    hub_commit.cache_clear()
    said = SimpleNamespace(sha="a" * 40, asked=[])

    def model_info(self, name, revision=None, timeout=None):
        said.asked.append((name, revision))
        if said.sha is None:
            raise OSError("Name or service not known")
        return said

    monkeypatch.setattr(HfApi, "model_info", model_info)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield said
    hub_commit.cache_clear()


@pytest.mark.parametrize("name", PLACES[:3])
def test_a_hub_model_is_its_commit(name, hub, key_from):
    first = key_from(name, "owner/name")
    assert key_from(name, "owner/name") == first
    assert len(hub.asked) == 1, "asked once per process"
    hub.sha = "b" * 40
    hub_commit.cache_clear()
    assert key_from(name, "owner/name") != first


def test_a_revision_counts_by_the_commit_it_leads_to(hub, key_from):
    assert key_from("model", "owner/name", revision="main") == key_from("model", "owner/name", revision="v1")
    assert key_from("model", "owner/name", revision="a" * 40) == key_from("model", "owner/name", revision="v1")
    assert hub.asked == [("owner/name", "main"), ("owner/name", "v1")], "a commit needs no Hub"


@pytest.mark.parametrize("name", PLACES[:3])
def test_without_the_hub_the_cache_names_the_commit(name, hub, key_from):
    first = key_from(name, "owner/name")
    hub_commit.cache_clear()
    hub.sha = None
    refs = Path(constants.HF_HUB_CACHE) / "models--owner--name" / "refs"
    with pytest.raises(HubError, match=r"The Hub model owner/name could not be read \(OSError: Name or service not known\)"):
        key_from(name, "owner/name")
    refs.mkdir(parents=True)
    (refs / "main").write_text("a" * 40)
    assert key_from(name, "owner/name") == first


def test_a_plan_marks_a_key_whose_model_is_not_known(hub):
    hub.sha, unread = None, Unread()
    assert unread(hub_commit, "owner/name", None).startswith(UNREAD)
    assert set(unread.why) == {"owner/name"}
