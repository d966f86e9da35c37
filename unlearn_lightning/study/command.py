"""`unlearn study CONFIG`: plans the tree, runs what is missing, and shows the outcome."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonargparse
import yaml
from rich.console import Console

from unlearn_lightning.records import read_study, write_text
from unlearn_lightning.shipped_configs import find, with_found_configs
from unlearn_lightning.study.flags import change, settings_flags
from unlearn_lightning.study.study_config import StudyConfig, merged
from unlearn_lightning.study.study_file import StudyFile
from unlearn_lightning.wandb_mode import beside_the_trial, in_trial, trial_name, usual_folder

if TYPE_CHECKING:
    from unlearn_lightning.study.tree import Run


OWN = ("store", "folder", "logger", "jobs", "until", "only", "retry_failed", "plan", "throughput", "peak_flops", "match_at")


def parser() -> jsonargparse.ArgumentParser:
    """The arguments of `unlearn study`."""
    found = jsonargparse.ArgumentParser(
        prog="unlearn study", description="Trains, unlearns and measures all the paths of a study, skipping what is finished."
    )
    found.add_argument(
        "--config",
        action=StudyFile,
        help="The study's YAML file, which may build on another (`like: FILE`); `unlearn study FILE` is short for it.",
    )
    found.add_argument("--store", default="runs/store", help="Folder of run folders; studies that share it share equal runs.")
    found.add_argument("--folder", type=str | None, default=None, help="The study folder; null for runs/<name>.")
    found.add_argument(
        "--logger", type=str | None, default=None, help="Where runs and report are logged: a file such as configs/loggers/tensorboard.yaml."
    )
    found.add_argument(
        "--jobs", type=int | None, default=None, help="Runs at a time, each on GPUs of its own; null for what the machine carries."
    )
    found.add_argument("--until", type=str | None, default=None, help="Train the paths up to this stage only, and unlearn nothing.")
    found.add_argument("--only", type=str | None, default=None, help="Only runs whose name fits, such as 'seed1/p4/*', and what they need.")
    found.add_argument("--retry-failed", action="store_true", help="Also try again what failed before.")
    found.add_argument("--plan", action="store_true", help="Show the tree, its commands and what it takes, and train nothing.")
    found.add_argument("--throughput", type=float | None, default=None, help="For --plan: tokens per second and device, if measured.")
    found.add_argument("--peak_flops", type=float | None, default=None, help="For --plan: the device's peak FLOPs per second.")
    found.add_argument(
        "--match_at", type=float | None, default=None, help="Compare paths at this forget score, nats; null for what all reach."
    )
    found.add_class_arguments(StudyConfig, as_group=False)
    return found


def study(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 1 when a run failed."""
    first, *rest = arguments or ["--help"]
    given = [first, *rest] if first.startswith("-") else ["--config", first, *rest]
    try:
        given = with_found_configs(given)
    except FileNotFoundError as error:
        print(f"unlearn study: {error}", file=sys.stderr)
        return 2
    own = parser()
    try:
        given, changes = settings_flags(given)
        parsed = own.parse_args(given)
        change(parsed, changes)
        options = parsed.as_dict()
        settings = {name: options.pop(name) for name in OWN}
        options.pop("config")
        config = StudyConfig(**options)
        if settings["logger"]:
            config = replace(config, common=merged(config.common, yaml.safe_load(find(settings["logger"]).read_text(encoding="utf-8"))))
        return _plan(config, settings) if settings["plan"] else _study(config, settings, own.dump(parsed, skip_unset=False))
    except (ValueError, OSError) as error:
        print(f"unlearn study: {error}", file=sys.stderr)
        return 2


def _plan(config: StudyConfig, settings: dict[str, Any]) -> int:
    console = Console()
    with console.status("planning"):
        from unlearn_lightning.lightning_cli import Resolver
        from unlearn_lightning.study.plan_view import print_plan
        from unlearn_lightning.study.tree import plan
        from unlearn_lightning.study.unread import Unread, quick_hub

        with quick_hub():
            runs = plan(config, Path(settings["store"]), Resolver().resolve, Unread())
    folder = _folder(config, settings)
    print_plan(config, runs, folder, console, settings["throughput"], settings["peak_flops"])
    return 0


def _study(config: StudyConfig, settings: dict[str, Any], written_out: str) -> int:
    folder = _folder(config, settings)
    console = Console()
    with console.status("planning"):
        from unlearn_lightning.lightning_cli import Resolver
        from unlearn_lightning.study.changes import explain_changes
        from unlearn_lightning.study.runner import RunFailed, run_study
        from unlearn_lightning.study.tree import plan
        from unlearn_lightning.study.workers import visible_devices

        runs = plan(config, Path(settings["store"]), Resolver().resolve)
        devices = visible_devices()
    wanted = chosen(runs, settings["until"], settings["only"])
    stages = sum(run.kind == "stage" for run in runs)
    console.print(f"Study [b]{config.name}[/]: {stages} training runs, {len(runs) - stages} unlearning runs.")
    if (folder / "study.json").is_file():
        for line in explain_changes(read_study(folder), runs):
            console.print(line, markup=False, style="yellow")
    write_text(folder / "study.yaml", written_out)
    status = executed = 0
    try:
        jobs = settings["jobs"] or default_jobs(config, runs, len(devices))
        with beside_the_trial():
            executed = run_study(config, runs, folder, console, jobs, wanted, settings["retry_failed"], devices)
        console.print(f"{executed} runs executed, {len(wanted) - executed} were finished already.")
    except RunFailed as failure:
        console.print(str(failure), markup=False, style="red")
        status = 1
    _report(folder, console, executed > 0 or in_trial(), settings["match_at"])
    return status


def _folder(config: StudyConfig, settings: dict[str, Any]) -> Path:
    return Path(settings["folder"] or usual_folder() / f"{config.name}{trial_name()}")


def _report(folder: Path, console: Console, upload_it: bool, match_at: float | None) -> None:
    from unlearn_lightning.report import build
    from unlearn_lightning.report.upload import UploadError, upload

    report = build(folder, match_at=match_at)
    report.print(console)
    if upload_it:
        try:
            upload(report)
        except UploadError as error:
            console.print(f"The report was not uploaded: {error}", markup=False, style="yellow")


def chosen(runs: Sequence[Run], until: str | None, only: str | None) -> list[Run]:
    """The runs that --until and --only leave.

    Raises:
        ValueError: they leave none; the message lists what there is.
    """
    found = [run for run in runs if until is None or (run.kind == "stage" and until in run.tags["path"][-1:])]
    found = [run for run in found if only is None or fnmatch(run.name, only)]
    if not found:
        asked = f"--until {until}" if until is not None else f"--only {only!r}"
        raise ValueError(f"{asked} fits no run. The runs are: {', '.join(run.name for run in runs)}.")
    return found


def default_jobs(config: StudyConfig, runs: Sequence[Run], devices: int) -> int:
    """As many runs at a time as there are GPUs for them; on CPUs, as the cores carry where a run's threads are known, else 1."""
    from unlearn_lightning.study.workers import on_gpus

    if devices and any(on_gpus(run.config["trainer"]) for run in runs):
        return devices
    return max(1, len(os.sched_getaffinity(0)) // config.threads) if config.threads else 1
