"""The wheel and the source distribution: built, installed outside of the repository, and used from an empty folder."""

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

import unlearn_lightning
from unlearn_lightning.cli import config_files
from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.main import main
from unlearn_lightning.study.study_file import read_study_file

ROOT = Path(__file__).parents[1]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv*", "build", "dist", "*.egg-info", "__pycache__", ".*_cache", "wandb", "mlruns")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """dist/ with a source distribution and the wheel that is built from it."""
    source = tmp_path_factory.mktemp("source") / "repository"
    # The package has a room named runs; the folder of that name at the top holds somebody's results.
    shutil.copytree(ROOT, source, ignore=lambda at, names: NOT_COPIED(at, names) | ({"runs"} if Path(at) == ROOT else set()), symlinks=True)
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(source / "dist"), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return source / "dist"


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """The environment in which only the wheel's files are found, not this repository's."""
    site = tmp_path_factory.mktemp("site")
    (wheel,) = built.glob("*.whl")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**os.environ, "PYTHONPATH": str(site), "WANDB_MODE": "disabled", "PATH": f"{site / 'bin'}:{os.environ['PATH']}"}


def unlearn(*arguments, env, cwd):
    return subprocess.run(["unlearn", *arguments], capture_output=True, text=True, env=env, cwd=cwd, check=False)


def shipped(folder):
    return {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts}


def test_the_wheel_holds_both_packages_with_their_data(built):
    (wheel,) = built.glob("*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    wanted = shipped("unlearn_lightning") | shipped("callbacks") | {f"unlearn_lightning/{name}" for name in shipped("configs")}
    assert wanted <= held
    assert {f"unlearn_lightning/models/bases/{name}/model.safetensors" for name in ("tiny-llama", "tiny-qwen2")} <= held
    assert not any(name.startswith(("tests/", "configs/", "docs/")) for name in held)
    (metadata,) = (name for name in held if name.endswith(".dist-info/METADATA"))
    about = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    assert about["Version"] == unlearn_lightning.__version__
    assert about["License-Expression"] == "MIT"
    assert about.get_payload().startswith("# unlearn_lightning")
    assert about["Requires-Python"] == ">=3.11"


def test_the_source_distribution_holds_what_the_tests_need(built):
    (archive,) = built.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        held = {name.partition("/")[2] for name in file.getnames()}
    for folder in ("unlearn_lightning", "callbacks", "configs", "docs", "scripts", "tests"):
        assert shipped(folder) <= held
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "constraints.txt", "pyproject.toml"} <= held


def test_an_installed_wheel_trains_by_shipped_names_in_an_empty_folder(installed, tmp_path):
    listed = unlearn("configs", env=installed, cwd=tmp_path)
    assert listed.stdout == config_files.listing(80)
    short = ["--trainer.max_steps", "1", "--trainer.accelerator", "cpu", "--data.train_examples", "16", "--data.batch_size", "8"]
    files = ["-c", "configs/stages/tofu.yaml", "-c=configs/backbones/tiny-llama.yaml"]
    done = unlearn("fit", *files, *short, "--run_folder", "runs/tofu", env=installed, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    used = subprocess.run(
        [sys.executable, "-c", "from importlib.util import find_spec as f; print(f('callbacks').origin, f('unlearn_lightning').origin)"],
        capture_output=True, text=True, env=installed, cwd=tmp_path, check=True,
    ).stdout  # fmt: skip
    assert used.count(installed["PYTHONPATH"]) == 2
    assert (tmp_path / "runs/tofu/run.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_version_has_one_place():
    stated = [path for path in ROOT.glob("unlearn_lightning/**/*.py") if f'"{unlearn_lightning.__version__}"' in path.read_text()]
    assert stated == [ROOT / "unlearn_lightning/__init__.py"]
    assert f"## {unlearn_lightning.__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert not re.search(r"^version", (ROOT / "pyproject.toml").read_text().split("[tool.setuptools.dynamic]")[0], re.M)


def test_the_citation_is_one():
    # The keys that the Citation File Format 1.2.0 demands, and the ones of an entity and of an article as used here.
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited)
    assert cited["cff-version"] == "1.2.0"
    assert all("name" in author for author in cited["authors"])
    assert cited["license"] == "MIT"
    for reference in cited["references"]:
        assert {"type", "title", "authors"} <= set(reference)
        assert all(set(author) <= {"family-names"} for author in reference["authors"])


def test_a_file_of_ones_own_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert config_files.find("configs/stages/tofu.yaml") == ROOT / "configs/stages/tofu.yaml"
    assert config_files.find("stages/tofu.yaml") == ROOT / "configs/stages/tofu.yaml"
    (tmp_path / "configs/stages").mkdir(parents=True)
    (tmp_path / "configs/stages/tofu.yaml").write_text("data: {}\n")
    assert config_files.find("configs/stages/tofu.yaml").read_text() == "data: {}\n"
    given = ["fit", "-c", "stages/math.yaml", "--config=stages/tofu.yaml", "--model", "-c", "{model: NPO}"]
    files = [str(ROOT / "configs/stages/math.yaml"), str(ROOT / "configs/stages/tofu.yaml"), "{model: NPO}"]
    assert prepared(given) == ["fit", *(word for name in files for word in ("--config", name)), "--model"]


def test_a_study_file_may_be_like_a_shipped_one(tmp_path):
    (tmp_path / "mine.yaml").write_text("like: configs/studies/demo.yaml\nname: mine\n")
    read = read_study_file(tmp_path / "mine.yaml")
    assert read == {**read_study_file(ROOT / "configs/studies/demo.yaml"), "name": "mine"}


def test_a_configuration_that_is_nowhere_gets_the_nearest_name(capsys):
    for command in (["fit", "-c", "configs/stages/tufo.yaml"], *([verb, "stages/tufo.yaml"] for verb in ("configs", "study", "memory"))):
        assert main(command) in (1, 2)
        assert "There is no configuration" in (told := capsys.readouterr().err)
        assert "Did you mean configs/stages/tofu.yaml?" in told


def test_a_copy_of_a_configuration_overwrites_nothing(tmp_path, capsys):
    copy = tmp_path / "new" / "mine.yaml"
    assert main(["configs", "stages/tofu.yaml", "--copy", str(copy)]) == 0
    assert copy.read_text() == (ROOT / "configs/stages/tofu.yaml").read_text()
    copy.write_text("mine")
    assert main(["configs", "stages/tofu.yaml", "--copy", str(copy)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert copy.read_text() == "mine"
    assert main(["configs", "--copy", str(copy)]) == 2
    assert main(["configs", "stages/tofu.yaml"]) == 0
    assert "TofuStage" in capsys.readouterr().out
