"""The pages that mkdocs makes of other files: the README as home, the command line's own help, and the code's docstrings.

mkdocs calls `on_config` and `on_files` (`hooks` in mkdocs.yml). A new page in docs/ appears in the navigation by itself.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from unlearn_lightning.main import HELP  # noqa: E402

# Title -> page, in the order of the navigation. A page that is not written yet is left out; one that is not named here comes last.
NAVIGATION = {
    "Your model, your data": "your-data.md",
    "Home": "index.md", "Tour": "tour.md", "Studies": "studies.md", "Objectives": "objectives.md", "Methods by path": "methods.md",
    "Metrics": "metrics.md", "Benchmarks": "benchmarks.md",
    "Results": "results.md", "Run folders": "runs.md", "Reliability": "reliability.md", "Extending": "extend.md",
    "Reproducing the paper": "reproduce.md", "Superficial forgetting": "superficial.md", "Theory": "theory.md",
    "Performance": "performance.md",
    "Scaling": "scaling.md", "Loggers": "loggers.md", "Clusters": "cluster.md", "Sweeps": "sweeps.md", "Real data": "data.md",
    "Ethics": "ethics.md",
    "Command line": "commands.md", "API": "api.md", "Changes": "changelog.md", "Contributing": "contributing.md", "Security": "security.md",
}  # fmt: skip
# Pages made of a file at the top of the repository.
TOP = {"index.md": "README.md", "changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md", "security.md": "SECURITY.md"}
CLASSES = ("--model.help=StageFineTuning", "--model.help=NPO", "--data.help=ChatStage", "--trainer.callbacks.help=ForgetLikelihood")
API = ("callbacks", "unlearn_lightning/objectives", "unlearn_lightning/modules", "unlearn_lightning/data", "unlearn_lightning")
NOT_API = {"__init__", "main"}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Sets the navigation to the pages that there are."""
    written = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    there = written | set(TOP) | {"commands.md", "api.md"}
    named = [{title: page} for title, page in NAVIGATION.items() if page in there]
    config.nav = [*named, *sorted(there - set(NAVIGATION.values()))]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that are made of other files to the site."""
    for page, name in TOP.items():
        if (ROOT / name).is_file():
            files.append(File.generated(config, page, content=as_page((ROOT / name).read_text(encoding="utf-8"))))
    files.append(File.generated(config, "commands.md", content=commands()))
    files.append(File.generated(config, "api.md", content=api()))
    return files


def as_page(text: str) -> str:
    """A file of the repository's top with its links as they are within docs/."""
    text = re.sub(r"\]\(docs/", "](", text)
    for page, name in TOP.items():
        text = text.replace(f"]({name})", f"]({page})")
    # A file that is no page is named only.
    return re.sub(r"\[([^\]]+)\]\(CITATION\.cff\)", r"\1 (CITATION.cff)", text)


def commands() -> str:
    """What `unlearn --help` and each verb's `--help` print."""
    verbs = [verb for verb in re.findall(r"^  (\w+) ", HELP, re.M) if verb not in ("validate", "test")]
    calls: list[list[str]] = [["--help"], *([verb, "--help"] for verb in verbs), *(["fit", about] for about in CLASSES)]
    parts = ["# Command line", "What the commands print themselves; `validate` and `test` take what `fit` takes."]
    for call, text in zip(calls, helps(calls), strict=True):
        parts.append(f"## unlearn {' '.join(call)}\n\n" + "".join(f"    {line}\n" for line in text.splitlines()))
    return "\n\n".join(parts)


def helps(calls: list[list[str]]) -> list[str]:
    """The output of several `unlearn` commands, run in one process; torch takes seconds to import."""
    code = (
        "import sys\nfrom unlearn_lightning.main import main\nsys.argv, calls = ['unlearn'], sys.argv[1:]\nfor call in calls:\n"
        "    try: main(call.split(' '))\n    except SystemExit: pass\n    print('\\0', end='', flush=True)"
    )
    environment: dict[str, Any] = {**os.environ, "COLUMNS": "120", "PYTHONPATH": str(ROOT), "WANDB_MODE": "disabled"}
    command = [sys.executable, "-c", code, *(" ".join(call) for call in calls)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout.split("\0")[: len(calls)]


def api() -> str:
    """One entry per module, filled by mkdocstrings from the docstrings; nothing is imported for it."""
    parts = ["# API", "The public classes and functions, module by module."]
    for folder in API:
        for path in sorted((ROOT / folder).glob("*.py")):
            if path.stem not in NOT_API:
                parts.append(f"::: {'.'.join(path.relative_to(ROOT).with_suffix('').parts)}")
    return "\n\n".join(parts)
