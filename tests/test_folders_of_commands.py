"""The README's commands leave folders in the checkout. None of them may change what a check of the checkout says."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What git ignores at the root without a dot is what the commands make there: runs, build, dist, benchmark-results, ...
IGNORED = [line.strip("/ ") for line in (ROOT / ".gitignore").read_text().splitlines() if line.startswith("/")]
MADE = sorted({*IGNORED, "runs", "build", "dist", "site"})


@pytest.mark.parametrize("folder", MADE)
def test_no_test_module_has_the_name_of_a_folder_that_a_command_makes(folder):
    assert not (ROOT / "tests" / f"{folder}.py").exists(), f"ruff would sort `import {folder}` otherwise once {folder}/ is there."


def test_imports_are_sorted_alike_with_and_without_the_folders(tmp_path):
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for part in ("tests", "callbacks", "unlearn_lightning", "scripts"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(".py")])
    for folder in MADE:
        (tmp_path / folder / "store").mkdir(parents=True)
    ruff = [sys.executable, "-m", "ruff", "check", "--select", "I", "--no-cache", "--quiet", "."]
    done = subprocess.run(ruff, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_machine_checks_the_readmes_commands_in_the_readmes_order():
    read = {name: (ROOT / name).read_text() for name in ("README.md", ".ci/run")}
    for text in read.values():
        assert 0 <= text.find("\nscripts/demo") < text.rfind("scripts/test"), "the demo comes first, then the tests"
