"""The arguments of `unlearn study`: every setting of a study file is a flag too, at any depth.

options = parse(["configs/studies/demo.yaml", "--jobs", "2"])[1]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import yaml
from jsonargparse.typing import PositiveFloat

from unlearn_lightning.cli.arguments import prepared
from unlearn_lightning.cli.line_parser import LineParser
from unlearn_lightning.cli.plugins import import_plugins
from unlearn_lightning.study.flags import change, settings_flags
from unlearn_lightning.study.launcher import Launcher, launcher_name, launcher_names
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.slurm import Slurm
from unlearn_lightning.study.study_config import StudyConfig
from unlearn_lightning.study.study_file import StudyFile

# Named here, so that they are known by their short names.
LAUNCHERS = (Local, Slurm)
OWN = (
    "store",
    "folder",
    "logger",
    "launcher",
    "jobs",
    "until",
    "only",
    "retry_failed",
    "plan",
    "throughput",
    "peak_flops",
    "match_at",
    "measure",
)


class _Parser(LineParser):
    """Takes launchers by their names in any case."""

    def parse_args(self, args: Sequence[str] | None = None, *rest: Any, **more: Any) -> jsonargparse.Namespace:  # type: ignore[override]
        """Parses; a ValueError says that there is no such launcher."""
        found: jsonargparse.Namespace = super().parse_args(None if args is None else _launcher_names(args), *rest, **more)
        return found


def parser() -> jsonargparse.ArgumentParser:
    """The arguments of `unlearn study`."""
    import_plugins()
    jsonargparse.set_loader("study", _load, exceptions=(yaml.YAMLError,))
    found = _Parser(
        prog="unlearn study", description="Trains, unlearns and measures all the paths of a study, skipping what is finished.",
        parser_mode="study",
    )  # fmt: skip
    found.add_argument(
        "-c", "--config", action=StudyFile,
        help="A YAML file, which may build on another (`like: FILE`); later ones win. `unlearn study FILE` is short for the first.",
    )  # fmt: skip
    found.add_argument("--store", default="runs/store", help="Folder of run folders; studies that share it share equal runs.")
    found.add_argument("--folder", type=str | None, default=None, help="The study folder; null for runs/<name>.")
    found.add_argument(
        "--logger", type=str | None, default=None, help="Where runs and report are logged: a file such as configs/loggers/tensorboard.yaml."
    )
    found.add_subclass_arguments(
        Launcher, "launcher", default={"class_path": "unlearn_lightning.study.local.Local"},
        help="Where runs are executed: local, slurm, or a class of yours; no part of any run's key.",
    )  # fmt: skip
    found.add_argument("--jobs", type=int | None, default=None, help="Short for --launcher.jobs of the local launcher.")
    found.add_argument("--until", type=str | None, default=None, help="Train the paths up to this stage only, and unlearn nothing.")
    found.add_argument("--only", type=str | None, default=None, help="Only runs whose name fits, such as 'seed1/p4/*', and what they need.")
    found.add_argument("--retry-failed", action="store_true", help="Also try again what failed before.")
    found.add_argument(
        "--measure", type=list[str] | str | None, default=None,
        help="Train nothing: measure these of the study's probes on the saved models of all finished runs, such as `rouge`, or `a,b`.",
    )  # fmt: skip
    found.add_argument(
        "--plan",
        action="store_true",
        help="Show the tree (or what --until and --only leave of it), its commands and what it takes; train nothing.",
    )
    found.add_argument("--throughput", type=float | None, default=None, help="For --plan: tokens per second and device, if measured.")
    found.add_argument("--peak_flops", type=float | None, default=None, help="For --plan: the device's peak FLOPs per second.")
    found.add_argument(
        "--match_at", type=PositiveFloat | None, default=None, help="Compare paths at this forget score, nats; null for what all reach."
    )
    found.add_class_arguments(StudyConfig, as_group=False)
    return found


def _load(text: str) -> Any:
    """Reads YAML as jsonargparse does; launchers go by their names in any case."""
    content = jsonargparse.get_loader("yaml")(text)
    launcher = content.get("launcher") if isinstance(content, dict) else None
    if isinstance(launcher, str):
        content["launcher"] = launcher_name(launcher)
    elif isinstance(launcher, dict) and isinstance(launcher.get("class_path"), str):
        launcher["class_path"] = launcher_name(launcher["class_path"])
    return content


def _launcher_names(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--launcher slurm` as `--launcher Slurm`.

    Raises:
        ValueError: there is no launcher of that name.
    """
    found = list(arguments)
    for place, word in enumerate(arguments):
        option, _, value = word.partition("=")
        if option in ("--launcher", "--launcher.help") and (value or place + 1 < len(found)):
            name = _known(value or found[place + 1])
            found[place + (not value)] = f"{option}={name}" if value else name
    return found


def _known(name: str) -> str:
    names, found = launcher_names(), launcher_name(name)
    if found in names or "." in name:
        return found
    raise ValueError(f"There is no launcher {name!r}: there are {', '.join(n.lower() for n in sorted(names))}, or give a class path.")


def parse(arguments: Sequence[str]) -> tuple[jsonargparse.ArgumentParser, jsonargparse.Namespace]:
    """The parser, and what it reads: a study folder's study.yaml, shipped files, flags of any depth, launchers by short names.

    Raises:
        ValueError, FileNotFoundError: a flag fits no setting, or there is no such file.
    """
    first, *rest = arguments or ["--help"]
    if Path(first).is_dir():
        first = str(Path(first) / "study.yaml")
    given, changes = settings_flags(prepared([first, *rest] if first.startswith("-") else ["--config", first, *rest]))
    own = parser()
    parsed = own.parse_args(given)
    change(parsed, changes)
    return own, parsed
