"""A single run, or a folder of runs and studies such as a sweep's, read as one study: equal runs once, others told apart by their settings.

load(Path("runs/sweeps/k2j8x1qa")).objectives      # ["NPO · beta=0.1", "NPO · beta=0.5", "NPO · beta=2.0"]
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from unlearn_lightning.records import read_run
from unlearn_lightning.records.settings import file_names, flatten, is_place, read_yaml
from unlearn_lightning.records.study_data import RunRecord, Study, load_study
from unlearn_lightning.records.texts import size_of

# More settings than these in which runs differ make no name.
MOST_SETTINGS = 3
# Parts of a configuration that say how a run is done or watched, and not what comes out.
ASIDE = (
    "run_folder",
    "checkpoint_every_n_steps",
    "seed_everything",
    "ckpt_path",
    "trainer.logger",
    "trainer.callbacks",
    "model.class_path",
)


def load(folder: Path) -> Study:
    """The study in a folder, or the run, or else the studies and runs below it as one.

    Raises:
        FileNotFoundError: there is neither.
        ValueError: a file has a format this version does not know.
    """
    if not (folder / "study.json").is_file() and (folder / "run.json").is_file():
        return _single(folder)
    return load_study(folder) if (folder / "study.json").is_file() or not _below(folder) else _gathered(folder)


def _single(folder: Path) -> Study:
    """One run, without those it starts from: their records are their own."""
    run = _with_ancestors(folder)[-1]
    return Study(folder.resolve().name, folder, _stage(run) if run.kind == "unlearn" else "", [run])


def _below(folder: Path) -> list[Path]:
    places = sorted(folder.iterdir()) if folder.is_dir() and not (folder / "run.json").is_file() else []
    return [place for place in places if (place / "study.json").is_file() or (place / "run.json").is_file()]


def _gathered(folder: Path) -> Study:
    runs: dict[str, RunRecord] = {}
    forget = ""
    for place in _below(folder):
        if (place / "study.json").is_file():
            study = load_study(place)
            forget = forget or study.forget
            found = study.runs
        else:
            found = _with_ancestors(place)
            forget = forget or next((_stage(run) for run in found if run.kind == "unlearn"), "")
        for run in found:
            known = runs.setdefault(run.key, run)
            # A run that only leads up to one path may end another.
            known.tags = {**run.tags, **{tag: value for tag, value in known.tags.items() if value is not None}}
    _tell_apart(runs)
    _one_retrained_model(runs)
    return Study(folder.name, folder, forget or "the forget stage", _by_settings(list(runs.values())))


def _with_ancestors(folder: Path) -> list[RunRecord]:
    """A single run and the runs that it starts from, as far as they are there, first to last, with the tags that a study would give."""
    info = read_run(folder)
    earlier: list[RunRecord] = []
    for place in _origins(folder):
        if (place / "run.json").is_file():
            earlier += _with_ancestors(place)
    path = [stage for run in earlier[-1:] for stage in run.tags["path"]]
    run = RunRecord(info["key"], folder.name, info["kind"], folder.resolve(), info.get("parents") or [], {}, info)
    if run.kind == "unlearn":
        forget = _stage(run)
        position = path.index(forget) + 1 if forget in path else 0
        run.tags = {"seed": info.get("seed"), "path": path, "p": position, "objective": info["model"]}
    else:
        run.tags = {"seed": info.get("seed"), "path": [*path, _stage(run)], "p": None}
    return [*earlier, run]


def _origins(folder: Path) -> Iterable[Path]:
    """The run folders that a run's configuration starts from: of its base model, then of its adapters."""
    backbone = read_yaml(folder / "config.yaml").get("model", {}).get("init_args", {}).get("backbone", {})
    adapters = backbone.get("adapter") or []
    places = [backbone.get("model"), *([adapters] if isinstance(adapters, str) else adapters)]
    return [Path(place).parent for place in places if place]


def _stage(run: RunRecord) -> str:
    return str(run.info.get("data", "stage")).removesuffix("Stage").lower()


def _tell_apart(runs: dict[str, RunRecord]) -> None:
    """Gives unlearning runs of one seed, path and objective, which a single study never has, tags for the settings they differ in."""
    groups: dict[Any, list[RunRecord]] = {}
    for run in runs.values():
        if run.kind == "unlearn":
            groups.setdefault((run.seed, run.path_identity, run.name_without("")), []).append(run)
    unlearned = [run for group in groups.values() for run in group]
    settings = {run.key: _settings(run, runs) for run in unlearned}
    different: dict[str, None] = {}
    for group in groups.values():
        different |= _differing(group, settings)
    named = all(run.name == run.folder.name for run in unlearned) and len(_alike(unlearned, settings, different)) == len(unlearned)
    if named and len(different) > MOST_SETTINGS:
        # Single runs that differ in much are known by the names that their user gave them.
        different = {}
    for name, tag in _short(list(different)).items():
        values = file_names(known[name] for known in settings.values() if name in known)
        for key, known in settings.items():
            if name in known:
                runs[key].tags[tag] = yaml.safe_load(values[known[name]])
    for group in groups.values():
        # What no setting tells apart, such as a file that was edited in between, are two experiments all the same.
        if any(len(alike) > 1 for alike in _alike(group, settings, different)):
            for run in group:
                run.tags["run"] = run.folder.name
    for run in runs.values():
        # Both properties were cached before the tags changed, so that they are computed again.
        run.__dict__.pop("extra_tags", None)
        run.__dict__.pop("objective", None)


def _differing(group: Sequence[RunRecord], settings: Mapping[str, dict[str, str]]) -> dict[str, None]:
    """The settings in which runs of a group differ; of those that name places only what tells apart runs that no other setting does."""
    names = dict.fromkeys(name for run in group for name in settings[run.key])
    values = {name: {settings[run.key].get(name, "–") for run in group} for name in names}
    places = [name for name in names if is_place(name, {"": list(values[name])})]
    found = dict.fromkeys(name for name in names if len(values[name]) > 1 and name not in places)
    for alike in _alike(group, settings, found):
        found |= dict.fromkeys(name for name in places if len({settings[run.key].get(name) for run in alike}) > 1)
    return found


def _alike(group: Sequence[RunRecord], settings: Mapping[str, dict[str, str]], names: Iterable[str]) -> list[list[RunRecord]]:
    """The runs of a group by the values of some settings."""
    found: dict[Any, list[RunRecord]] = {}
    for run in group:
        found.setdefault(tuple(settings[run.key].get(name) for name in names), []).append(run)
    return list(found.values())


def _by_settings(runs: list[RunRecord]) -> list[RunRecord]:
    """The runs, stages first; the unlearning runs of an objective by the values of the settings that they differ in, numbers by size."""
    unlearned = [run for run in runs if run.kind == "unlearn"]
    families = list(dict.fromkeys(run.tags["objective"] for run in unlearned))
    tags = list(dict.fromkeys(tag for run in unlearned for tag in run.extra_tags))

    def place(run: RunRecord) -> Any:
        return families.index(run.tags["objective"]), [size_of(run.extra_tags.get(tag, "")) for tag in tags]

    return [*(run for run in runs if run.kind != "unlearn"), *sorted(unlearned, key=place)]


def _one_retrained_model(runs: dict[str, RunRecord]) -> None:
    """Where trials trained their stages differently there are several retrained models of a seed and path, and none is everyone's."""
    models: dict[Any, list[RunRecord]] = {}
    for run in runs.values():
        if run.tags.get("retrained"):
            models.setdefault((run.seed, run.stages), []).append(run)
    for several in models.values():
        if len(several) > 1:
            for run in several:
                run.tags.pop("retrained")


def _settings(run: RunRecord, runs: dict[str, RunRecord]) -> dict[str, str]:
    """What decides a run's result: its own settings and, with their stage before the name, those of all it starts from."""
    found = {name: value for name, value in flatten(read_yaml(run.folder / "config.yaml")).items() if not name.startswith(ASIDE)}
    for key in run.parents:
        if key in runs:
            stage = (runs[key].stages or ("base",))[-1]
            found |= {f"{stage}.{name}" if runs[key].kind == "stage" else name: v for name, v in _settings(runs[key], runs).items()}
    return found


def _short(names: list[str]) -> dict[str, str]:
    """Each name's shortest end that tells it from the others, without `init_args`."""
    parts = {name: [part for part in name.split(".") if part != "init_args"] for name in names}
    short = {}
    for name in names:
        for length in range(1, len(parts[name]) + 1):
            short[name] = ".".join(parts[name][-length:])
            if sum(parts[other][-length:] == parts[name][-length:] for other in names) == 1:
                break
    return short
