"""Every command that README.md and docs/ show is run, or at least parsed by the command's own parser, in the order of its page.

What is not run stands in one of the tables below with the reason. A new command that fits no rule fails here until it has one.
"""

import importlib
import os
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import yaml
from test_report_study_data import StudyWriter

from unlearn_lightning.cli.config_files import find
from unlearn_lightning.main import ROOMS, main
from unlearn_lightning.records import is_finished
from unlearn_lightning.study.study_config import merged
from unlearn_lightning.study.study_file import read_study_file

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.S | re.M)
SHELL = ("", "sh", "bash", "shell")
# Pages whose `unlearn fit` and `validate` are trained for real, at this size. Other pages' are parsed: they belong to studies that take
# hours, and say how long they took.
TRAINED = ("README.md", "loggers.md", "extend.md")
SMALL = "--trainer.max_steps 1 --trainer.accelerator cpu --data.train_examples 32 --data.held_out_examples 8"

# Begins of commands that are only parsed, with the reason.
PARSED = {
    "unlearn study": "takes minutes to days; tests/test_study.py runs small ones, scripts/demo the demo's",
    "unlearn report": "would draw the same figures again; tests/test_report_command.py runs it",
    "unlearn watch": "follows a study until it is over; tests/test_watch.py runs it",
    "unlearn memory": "takes seconds for each model; tests/test_memory.py runs it on a small one",
    "unlearn theory": "takes half a minute of CPU time; tests/test_theory_extensions.py runs every part",
    "unlearn fit -c configs/own_data.yaml": "needs the reader's model and files; tests/test_own_data.py runs it on some",
    "unlearn evaluate": "needs a run and the harness's data sets; tests/test_evaluate.py runs it on tasks of its own",
    "unlearn alternates": "needs a finished run; tests/test_alternates.py runs it on one",
    "unlearn export": "needs a run with an adapter; tests/test_export.py runs it",
}
# Begins of commands that are neither run nor parsed, with the reason.
SKIPPED = {
    "source .venv/bin/activate": "the environment is the one that the tests run in",
    "pip install": "would change the environment that the tests run in",
    ".venv/bin/pip install": "would change the environment that the tests run in",
    "export": "sets a key of the reader's",
    "unlearn study paper_real.yaml": "a file of the reader's; test_the_study_with_written_data_builds_on_the_papers reads it",
    "unlearn study people.yaml": "a file of the reader's; tests/test_own_stages.py runs it as the page has it",
    "python -m pytest": "tests/test_new.py runs pytest on the written files",
    "torchrun": "needs several machines; tests/test_processes.py has two processes started by its agents as if they were",
    ".venv/bin/python tests/acceptance.py": "needs the demo's finished runs; tests/test_acceptance.py asks the same of them",
    "srun": "needs SLURM's allocation; tests/test_processes.py starts two processes in a job's environment",
    ".venv/bin/python -m pytest -m gpu": "needs a CUDA device; without one these tests are skipped with that reason",
    "wandb sweep": "needs W&B's server; tests/test_sweeps.py parses every sweep",
    "wandb agent": "needs W&B's server; tests/test_sweeps.py runs the agent against a stand-in",
    "tensorboard --logdir": "serves until it is stopped; tests/test_loggers.py reads what it would show",
    "mlflow ui": "serves until it is stopped, and needs MLflow's server; tests/test_loggers.py reads what it would show",
    "for lr in": "the shell's loop over a command that the same page shows; tests/test_own_data.py runs one",
    "unlearn validate RUN": "needs a finished run; tests/test_measuring.py measures one",
    "unlearn validate runs/forgotten": "needs a finished run, as the one before",
    "unlearn validate --model.backbone.model FOLDER": "needs a model and a run; tests/test_measuring.py measures one",
    "unlearn fit ...": "an abbreviation; tests/test_extend.py measures with this metric",
    "unlearn study ...": "an abbreviation",
    "unlearn study configs/studies/demo.yaml --launcher Prefixed": "needs the package of docs/extend.md, as the next one",
    "unlearn fit --model FlooredAscent": "needs the package of docs/extend.md; tests/test_extend.py installs it and runs this",
}
# Words that stand for something of the reader's.
PLACEHOLDERS = {"RUN": "runs/mine", "STUDY": "runs/demo", "STUDY_FOLDER": "runs/demo", "CONFIG": "configs/studies/demo.yaml"}
# Verbs that are run wherever they are shown.
CHEAP = ("status", "configs")
HUB = re.compile(r"configs/backbones/(llama[23]|smollm2|qwen[23]|gemma3|phi|olmo2)")


def commands(page):
    """The commands of a page's blocks, one string each, and those that its sentences name with arguments."""
    text = page.read_text()
    for language, block in BLOCK.findall(text):
        if language not in SHELL:
            continue
        lines = block.replace("\\\n", " ").splitlines()
        # Where a block also shows what is printed, the commands are the lines behind a prompt.
        for line in [line[2:] for line in lines if line.startswith("$ ")] or lines:
            if words := shlex.split(line, comments=True):
                yield "block", words
    for inline in re.findall(r"`(unlearn [^`]+)`", BLOCK.sub("", text)):
        words = shlex.split(inline)
        if len(words) > 2 or words[1].startswith("-"):
            yield "sentence", words


def without_environment(words):
    while "=" in words[0]:
        words = words[1:]
    return words


def rule(table, words):
    return next((reason for begin, reason in table.items() if words[: len(begin.split())] == begin.split()), None)


def parse(words):
    """Has the command's own parser read its arguments."""
    verb, *rest = (re.sub(r"^[A-Z_]+(?=/|$)", lambda found: PLACEHOLDERS.get(found[0], found[0]), word) for word in words[1:])
    if verb in ("fit", "validate", "test"):
        with pytest.raises(SystemExit) as end:
            main([verb, *rest, "--print_config"])
        assert end.value.code in (0, None), words
    elif verb.startswith("-") or verb in CHEAP:
        assert main([verb, *rest]) == 0, words
    else:
        asks_for_help = any(word.endswith(("--help", ".help")) or ".help=" in word for word in rest)
        with pytest.raises(SystemExit, match=r"^0$") if asks_for_help else nullcontext():
            module = importlib.import_module(ROOMS[verb].partition(":")[0])
            module.parse(rest) if verb == "study" else module.parser().parse_args(rest)


def parse_script(words, monkeypatch):
    """Has a script that asks an endpoint read its arguments; it stops before it asks."""
    name, *rest = words
    monkeypatch.setattr(sys, "argv", [name, *rest, "--print_config"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / name), run_name="__main__")
    assert end.value.code in (0, None), words


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a measured study and a run's configuration, in which the pages' commands run one after the other."""
    place = tmp_path_factory.mktemp("reader")
    config = merged(*(yaml.safe_load(find(name).read_text()) for name in ("stages/tofu.yaml", "backbones/tiny-llama.yaml")))
    (place / "runs/mine").mkdir(parents=True)
    (place / "runs/mine/config.yaml").write_text(yaml.safe_dump(config))
    writer = StudyWriter(place, name="demo")
    for p, drop in {1: 3.0, 4: 1.5}.items():
        writer.unlearn(1, p, "npo", label={0: 0.0, 2: -drop}, phrases={0: 0.0, 2: -drop})
    shutil.copytree(writer.write(), place / "runs" / "demo")
    return place


@pytest.mark.timeout(200)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_page(page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    for where, words in commands(page):
        line, words = shlex.join(words), without_environment(words)
        if rule(SKIPPED, words):
            continue
        if words[0].startswith("scripts/"):
            # They install into .venv first. The tests of what they call are named in the scripts.
            script = ROOT / words[0]
            assert os.access(script, os.X_OK), line
            if "python" in script.read_text().partition("\n")[0]:
                compile(script.read_text(), script, "exec")
            else:
                assert subprocess.run(["bash", "-n", str(script)], check=False).returncode == 0, line
            continue
        if words[:1] == ["python"] and words[1].startswith("scripts/"):
            # Their own parser reads them; tests/test_asking.py runs them against an endpoint.
            parse_script(words[1:], monkeypatch)
            continue
        assert words[0] == "unlearn", f"{page.name}: `{line}` fits no rule. Add it to one of this file's tables, with the reason."
        trains = words[1] in ("fit", "validate", "test")
        if where == "block" and trains and page.name in TRAINED and not HUB.search(line) and not rule(PARSED, words):
            assert main([*words[1:], *SMALL.split()]) == 0, line
            if "--run_folder" in words and words[1] == "fit":
                assert is_finished(Path(words[words.index("--run_folder") + 1])), line
        elif where == "block" and not trains and not rule(PARSED, words):
            assert main(words[1:]) == 0, line
        else:
            parse(words)


def test_the_study_with_written_data_builds_on_the_papers(tmp_path):
    """docs/data.md's study file, put anywhere, is the shipped study with the two files in it."""
    shown = next(block for language, block in BLOCK.findall((ROOT / "docs/data.md").read_text()) if language == "yaml")
    (tmp_path / "paper_real.yaml").write_text(shown)
    stages = read_study_file(tmp_path / "paper_real.yaml")["stages"]
    data = {stage: stages[stage]["data"]["init_args"] for stage in ("safety", "math")}
    assert (data["safety"]["source"], data["safety"]["train_examples"]) == ("refusals.jsonl", 4500)
    assert (data["math"]["source"], data["math"]["train_examples"]) == ("gsm8k_steps.jsonl", 8000)
    assert data["math"]["held_out_examples"] == 1319


def test_every_reason_is_needed():
    """The tables name nothing that no page shows."""
    shown = [without_environment(words) for page in PAGES for _, words in commands(page)]
    for table in (PARSED, SKIPPED):
        for begin in table:
            assert any(words[: len(begin.split())] == begin.split() for words in shown), begin
