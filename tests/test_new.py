"""`unlearn new`: what it writes passes its own test as it is."""

import subprocess
import sys

import pytest
from forked import together

from unlearn_lightning.main import main

NAMES = {"callback": "WeakestToken", "objective": "KLFloor", "stage": "SayingsStage"}


def test_the_written_files_pass_their_own_tests(tmp_path, capsys):
    for kind, name in NAMES.items():
        assert main(["new", kind, name, "--folder", str(tmp_path / "written_by_new")]) == 0
    told = capsys.readouterr().out
    assert "--trainer.callbacks+ weakest_token.WeakestToken" in told
    assert told.count(f"  PYTHONPATH={tmp_path / 'written_by_new'} unlearn fit ") == 3, "from where one works, the class is found there"
    files = sorted(path.name for path in (tmp_path / "written_by_new").iterdir())
    modules = ["kl_floor", "sayings_stage", "weakest_token"]
    assert files == sorted([f"{m}.py" for m in modules] + [f"test_{m}.py" for m in modules])
    written = "".join((tmp_path / "written_by_new" / file).read_text() for file in files)
    assert not any(word in written for word in ("NewCallback", "NewObjective", "NewStage", "new_callback", "new_objective", "new_stage"))
    # In a package, and one of the tests where it was written, the others in tests/.
    (tmp_path / "written_by_new" / "tests").mkdir()
    (tmp_path / "written_by_new" / "__init__.py").touch()
    for moved in ("test_kl_floor.py", "test_weakest_token.py"):
        (tmp_path / "written_by_new" / moved).rename(tmp_path / "written_by_new" / "tests" / moved)
    (said,) = together(lambda: pytest.main(["-q", "-p", "no:cacheprovider", str(tmp_path / "written_by_new")]), cwd=tmp_path)
    assert "7 passed" in said


def test_nothing_is_overwritten(tmp_path, capsys):
    (tmp_path / "test_mine.py").write_text("kept")
    assert main(["new", "stage", "Mine", "--folder", str(tmp_path)]) == 2
    assert "exists already and is left as it is" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    assert (tmp_path / "test_mine.py").read_text() == "kept"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("my_metric", "is no class name"), ("../Evil", "is no class name"), ("2Fast", "is no class name"), ("None", "is no class name"),
        ("Ünlearn", "is no class name"), ("Torch", "installed package's 'torch'"), ("Class", "stand in the way of Python's"),
    ],
)  # fmt: skip
def test_names_are_checked(name, why, tmp_path, capsys):
    assert main(["new", "callback", name, "--folder", str(tmp_path)]) == 2
    assert why in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_kind_is_told_what_there_is(capsys):
    assert main(["new", "launcher", "Mine"]) == 2
    assert "'callback', 'objective', 'stage'" in capsys.readouterr().err


def test_a_folder_callbacks_of_ones_own_joins_the_packages(tmp_path):
    mine = tmp_path / "callbacks"
    mine.mkdir()
    (mine / "__init__.py").touch()
    (mine / "loud.py").write_text("from callbacks import GSM8KAccuracy\n\nclass Loud(GSM8KAccuracy):\n    pass\n")
    (mine / "probe.py").write_text("print('never read')")
    code = "import unlearn_lightning.main as m; m._run(['--version']); import callbacks.loud as one; print(one.Loud.probe_name)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "gsm8k"
    assert f"{mine}: probe.py is not read, as this package has a file of that name." in done.stdout + done.stderr
