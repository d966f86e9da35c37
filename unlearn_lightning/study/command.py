"""`unlearn study CONFIG`: plans the tree, runs what is missing, and shows the outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from unlearn_lightning.cli.config_files import find
from unlearn_lightning.cli.secrets import refuse_secrets
from unlearn_lightning.cli.terminal import terminal_console
from unlearn_lightning.loggers.wandb_end import in_a_programs_run
from unlearn_lightning.loggers.wandb_settings import beside_the_trial, in_trial, trial_name, usual_folder
from unlearn_lightning.preemption import check
from unlearn_lightning.records import is_finished, read_study, write_text
from unlearn_lightning.records.yaml_files import read_mapping
from unlearn_lightning.study.launcher import Launcher
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.parser import OWN, parse
from unlearn_lightning.study.relearning import RELEARN
from unlearn_lightning.study.study_config import StudyConfig, merged
from unlearn_lightning.study.study_file import tell_not_shared

if TYPE_CHECKING:
    from unlearn_lightning.study.run import Run


def study(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status: 1 when a run failed."""
    own, parsed = parse(arguments)
    options = parsed.as_dict()
    # What is written down is the study, and not what is done with it this time.
    parsed.measure = parsed.until = parsed.only = None
    options.pop("config")
    # The launcher's settings are written, too: study.yaml holds all of this.
    refuse_secrets(options)
    settings = {name: options.pop(name) for name in OWN}
    config = StudyConfig(**options)
    if settings["logger"]:
        logger = read_mapping(find(settings["logger"]))
        refuse_secrets(logger, settings["logger"])
        config = replace(config, common=merged(config.common, logger))
    tell_not_shared(config)
    if settings["plan"]:
        return _plan(config, settings)
    if unused := [f"--{name}" for name in ("throughput", "peak_flops") if settings[name] is not None]:
        raise ValueError(f"{' and '.join(unused)} without --plan says nothing, as only a plan estimates hours; add it, or leave this out.")
    return _study(config, settings, _launcher(own.instantiate(parsed).launcher, settings["jobs"]), own.dump(parsed, skip_unset=False))


def _launcher(launcher: Launcher, jobs: int | None) -> Launcher:
    if jobs is None:
        return launcher
    if not isinstance(launcher, Local):
        raise ValueError(f"--jobs is for the local launcher; {type(launcher).__name__} decides itself how many runs there are at a time.")
    return Local(jobs, launcher.devices)


def _plan(config: StudyConfig, settings: dict[str, Any]) -> int:
    console = terminal_console()
    if settings["measure"] is not None:
        raise ValueError("--plan shows what would be trained, and --measure trains nothing; leave one of them out.")
    with console.status("planning"):
        from unlearn_lightning.cli.resolver import Resolver
        from unlearn_lightning.study.parts import parts_that_do_not_fit
        from unlearn_lightning.study.plan_view import print_plan
        from unlearn_lightning.study.run import with_ancestors
        from unlearn_lightning.study.tree import plan
        from unlearn_lightning.study.unread import Unread, quick_hub

        with quick_hub():
            unread = Unread()
            runs = plan(config, Path(settings["store"]), Resolver().resolve, unread)
            unfit = parts_that_do_not_fit(config, runs)
    folder = _folder(config, settings)
    asked = settings["until"] is not None or settings["only"] is not None
    planned = with_ancestors(runs, chosen(runs, settings["until"], settings["only"])) if asked else None
    print_plan(config, runs, folder, console, settings["throughput"], settings["peak_flops"], planned)
    if unread.why:
        unfit.append(f"Not read, and so not in the keys: {', '.join(unread.why)}.")
    for line in unfit:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _study(config: StudyConfig, settings: dict[str, Any], launcher: Launcher, written_out: str) -> int:
    if in_a_programs_run():
        raise ValueError(
            "W&B has a run open that the calling program has begun, into which all runs of the study would be logged: end it before, by "
            "wandb.finish()."
        )
    folder = _folder(config, settings)
    console = terminal_console()
    with console.status("planning"):
        from unlearn_lightning.cli.resolver import Resolver
        from unlearn_lightning.study.changes import explain_changes, refuse_other_store, refuse_other_study
        from unlearn_lightning.study.measuring import account
        from unlearn_lightning.study.parts import parts_that_do_not_fit
        from unlearn_lightning.study.tree import plan
        from unlearn_lightning.study.work import RunFailed, Work

        runs = plan(config, Path(settings["store"]), Resolver().resolve)
        unfit = parts_that_do_not_fit(config, runs)
        if (folder / "study.json").is_file():
            earlier = read_study(folder)
            refuse_other_study(folder, earlier, config.name)
            refuse_other_store(folder, earlier, runs)
    named = _named(config, settings["measure"])
    work = Work(config, runs, folder, console, chosen(runs, settings["until"], settings["only"]), settings["retry_failed"], named)
    counted = [sum(run.kind == "stage" for run in runs), sum(run.kind == RELEARN for run in runs)]
    relearning = f", {counted[1]} relearning runs" if counted[1] else ""
    console.print(f"Study [b]{config.name}[/]: {counted[0]} training runs, {len(runs) - sum(counted)} unlearning runs{relearning}.")
    if (folder / "study.json").is_file():
        for line in explain_changes(read_study(folder), runs):
            console.print(line, markup=False, style="yellow")
    for line in [*unfit, *account(work.lacking), *_unfinished(runs, named)]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    write_text(folder / "study.yaml", written_out)
    before, status = len(work.done), 0
    with beside_the_trial():
        over = launcher.launch(work)
        check()
    measured = len(work.done & work.lacking.keys())
    executed = len(work.done) - before - measured
    try:
        if over:
            work.check()
            more = f", {measured} of them measured now" if measured else ""
            console.print(f"{executed} runs executed, {len(work.trained)} were finished already{more}.")
    except RunFailed as failure:
        console.print(str(failure), markup=False, style="red", soft_wrap=True)
        status = 1
    if over:
        _report(folder, console, executed + measured > 0 or in_trial(), settings["match_at"])
    return status or int(bool(work.failed))


def _named(config: StudyConfig, measure: str | list[str] | None) -> tuple[str, ...] | None:
    """The probes that --measure names, by the names of their records.

    Raises:
        ValueError: the study has none of that name.
    """
    if measure is None:
        return None
    names = tuple(name for given in ([measure] if isinstance(measure, str) else measure) for name in given.split(","))
    if unknown := sorted(set(names) - config.probes.keys()):
        raise ValueError(f"--measure names {', '.join(unknown)}, but `probes` has {', '.join(sorted(config.probes)) or 'none'}.")
    # Records lie under the name that a probe has in its settings, where it has one there.
    return tuple(str((config.probes[name].get("init_args") or {}).get("name") or name) for name in names)


def _unfinished(runs: Sequence[Run], named: Sequence[str] | None) -> list[str]:
    missing = sum(not is_finished(run.folder) for run in runs) if named is not None else 0
    return [f"{missing} runs are not finished and not measured; `unlearn study` without --measure trains them."] if missing else []


def _folder(config: StudyConfig, settings: dict[str, Any]) -> Path:
    return Path(settings["folder"] or usual_folder() / f"{config.name}{trial_name()}")


def _report(folder: Path, console: Console, upload_it: bool, match_at: float | None) -> None:
    from unlearn_lightning.loggers.report_upload import UploadError, upload
    from unlearn_lightning.report import build

    report = build(folder, match_at=match_at)
    report.print(console)
    if upload_it:
        try:
            upload(report)
        except UploadError as error:
            console.print(f"The report was not uploaded: {error}", markup=False, style="yellow", soft_wrap=True)


def chosen(runs: Sequence[Run], until: str | None, only: str | None) -> list[Run]:
    """The runs that --until and --only leave.

    Raises:
        ValueError: they leave none; the message lists what there is.
    """
    found = [run for run in runs if until is None or (run.kind == "stage" and until in run.tags["path"][-1:])]
    found = [run for run in found if only is None or fnmatch(run.name, only)]
    if not found:
        asked = " and ".join([*([f"--until {until}"] if until is not None else []), *([f"--only {only!r}"] if only is not None else [])])
        raise ValueError(f"{asked} fits no run. The runs are: {', '.join(run.name for run in runs)}.")
    return found
