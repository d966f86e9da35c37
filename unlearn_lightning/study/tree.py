"""From a study to its tree of runs: shared prefixes once, each run with its key, its configuration and its place on disk.

runs = plan(study, store=Path("runs/store"))       # parents before children
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from callbacks import Probe
from unlearn_lightning import data
from unlearn_lightning.data.example_source import HELD_OUT
from unlearn_lightning.records import is_finished
from unlearn_lightning.runs.content import refuse_changed
from unlearn_lightning.runs.cut_short import check_whole
from unlearn_lightning.runs.run_key import Reader, digest, read_content, run_inputs
from unlearn_lightning.study.relearning import RELEARN, Relearning
from unlearn_lightning.study.requests import Request, each_request, parts_of
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.study_config import Settings, StudyConfig, StudyPath, merged


def plan(study: StudyConfig, store: Path, resolve: Callable[[Settings], Settings], content: Reader = read_content) -> list[Run]:
    """All runs of a study, parents before children, each distinct run once.

    Args:
        study: what to run.
        store: folder of run folders; studies that share it share equal runs.
        resolve: fills in an `unlearn fit` configuration's defaults (`resolver.Resolver`).
        content: reads what keys cover; `unread.Unread` for a plan that is only shown.
    """
    check_probe_names(study)
    return _Planner(study, store.absolute(), resolve, content).plan()


class _Planner:
    def __init__(self, study: StudyConfig, store: Path, resolve: Callable[[Settings], Settings], content: Reader) -> None:
        self.study, self.store, self.resolve, self.content = study, store, resolve, content
        self.known: dict[str, str] = {}
        self.runs: dict[str, Run] = {}
        self.backbone = self._backbone()

    def plan(self) -> list[Run]:
        for seed in self.study.seeds:
            base = [self._base(seed)] if self.study.base is not None else []
            # An empty path is the base itself; where there is none, nothing was trained that could be compared with.
            retrained = {path: run for path in self.study.retrained_paths() if (run := self._path(seed, path, base))}
            for run in retrained.values():
                run.tags["retrained"] = True
            if isinstance(self.study.retrained, str):
                # Its stages do not say of which path it is the retrained model.
                for path in self.study.all_paths():
                    retrained[path.retrained or ()].tags["retrained_of"] = list(path.stages)
            ends = [(path, self._end(seed, path, base)) for path in self.study.all_paths()]
            for objective in self.study.objectives:
                siblings: dict[str, Run] = {}
                for path, end in ends:
                    run = self._unlearn(seed, path, objective, end)
                    run.quantised = self.study.quantised
                    without = retrained.get(path.retrained) if path.retrained is not None else None
                    run.compare = {**({"retrained": without} if without else {}), **siblings}
                    siblings[path.name] = run
                    self._requests(seed, path, objective, end, without)
                    self._relearn(seed, run, path.stages, without)
            for stages, run in retrained.items():
                self._relearn(seed, run, stages, None)
        return list(self.runs.values())

    def _base(self, seed: int) -> Run:
        assert self.study.base is not None
        # A base is a whole model, also where the stages train adapters.
        whole = {"model": {"class_path": "StageFineTuning", "init_args": {"backbone": {"lora": None, "quantization": None}}}}
        config = self._config(seed, {"data": {"init_args": {"source": self.study.source}}}, self.study.base, whole)
        return self._add(f"seed{seed}/base", "stage", config, [], {"seed": seed, "path": [], "p": None})

    def _path(self, seed: int, path: tuple[str, ...], base: list[Run]) -> Run | None:
        """The run that ends a path; None where there is neither a stage nor a base."""
        parents = base
        for length in range(1, len(path) + 1):
            stage = path[length - 1]
            config = self._config(
                seed, {"model": {"class_path": "StageFineTuning"}}, self.study.fine_tuning, self.study.stages[stage],
                {"data": self._data(stage)}, self._start_from(parents), self._probes(self.study.stage_probes, {"every_n_steps": 0}),
            )  # fmt: skip
            tags = {"seed": seed, "path": list(path[:length]), "p": None}
            parents = [self._add(f"seed{seed}/{'-'.join(path[:length])}", "stage", config, parents, tags)]
        return parents[0] if parents else None

    def _end(self, seed: int, path: StudyPath, base: list[Run]) -> Run:
        run = self._path(seed, path.stages, base)
        assert run is not None, "a path holds the forget stage at least"
        run.tags |= path.tags
        return run

    def _requests(self, seed: int, path: StudyPath, name: str, end: Run, without: Run | None) -> None:
        """The forget set unlearned part by part, in every order; a run starts from the one that unlearned the parts before."""
        runs: dict[tuple[int, ...], Run] = {(): end}
        for request in self.each_request:
            run = self._unlearn(seed, path, name, runs[request.order[:-1]], request)
            run.compare = {"retrained": without} if without else {}
            runs[request.order] = run

    def _relearn(self, seed: int, start: Run, path: tuple[str, ...], without: Run | None) -> None:
        """A little more fine-tuning behind a model that has unlearned, or has never seen, the forget set."""
        for one in self.study.each_relearning():
            config = self._relearning_config(seed, one, start)
            # The retrained models' own places in the tree, and not what they are to others.
            tags = {name: value for name, value in start.tags.items() if name not in ("retrained", "retrained_of")}
            tags |= {"path": list(path), "relearning": one.name}
            run = self._add(f"{start.name}/{RELEARN}-{one.name}", RELEARN, config, [start], tags)
            run.compare = {"retrained": without} if without else {}

    def _relearning_config(self, seed: int, one: Relearning, start: Run) -> Settings:
        stage = one.stage or self.study.unlearned or self.study.forget
        usual, own = one.fine_tuning()
        measured = self._probes((one.probe,), {"every_n_steps": one.every_n_steps})
        others = self._probes(tuple(name for name in one.probes if name != one.probe), {"every_n_steps": 0})
        measured["trainer"]["callbacks"] += others["trainer"]["callbacks"]
        layers: list[Settings] = [self.study.fine_tuning, self.study.stages[stage], {"data": self._data(stage)}, usual, own]
        layers.append(self._start_from([start]))
        if start.kind == "unlearn":
            # An objective may have trained all weights where the stages train adapters, or the other way round.
            lora = start.config["model"]["init_args"]["backbone"]["lora"]
            layers.append({"model": {"init_args": {"backbone": {"lora": lora}}}})
        return self._config(seed, {"model": {"class_path": "StageFineTuning"}}, *layers, measured)

    @cached_property
    def each_request(self) -> list[Request]:
        """The runs of all orders; none where the forget set is unlearned at once only."""
        if not self.study.requests:
            return []
        part = self.study.unlearned or self.study.forget
        data, stage = self._data(part), stage_of(self.study, part)
        return each_request(parts_of(stage, data, self.study.requests, self.store))

    def _unlearn(self, seed: int, path: StudyPath, name: str, start: Run, request: Request | None = None) -> Run:
        objective = dict(self.study.objectives[name])
        own_tags = objective.pop("tags", {})
        if retain := dict(objective.pop("retain", None) or {}):
            retain["data"] = self._data(retain.pop("stage"))
            objective = merged(objective, {"model": {"init_args": {"retain": retain}}})
        data = request.data if request else self._data(self.study.unlearned or self.study.forget)
        probes = self._probes(tuple(self.study.probes), {})
        if request:
            probes["trainer"]["callbacks"] += request.probes
        config = self._config(seed, {"data": data}, self.study.unlearning, objective, self._start_from([start]), probes)
        tags = {"seed": seed, "path": list(path.stages), **path.tags, "objective": name, **own_tags}
        called = f"seed{seed}/{path.name}/{name}"
        if request:
            tags["requests"] = list(request.order)
            return self._add(f"{called}/{'-'.join(map(str, request.order))}", "request", config, [start], tags)
        return self._add(called, "unlearn", config, [start], tags)

    def _config(self, seed: int, *layers: Settings) -> Settings:
        quiet = {"trainer": {"enable_progress_bar": False, "enable_model_summary": False}, "seed_everything": seed}
        return merged(quiet, {"model": {"init_args": {"backbone": self.backbone}}}, self.study.common, *layers)

    def _backbone(self) -> Settings:
        """The study's backbone; the corpus entry `stages` stands for the sources of all stages."""
        corpus = (self.study.backbone.get("scratch") or {}).get("corpus", [])
        if "stages" not in corpus:
            return self.study.backbone
        sources = [stage_of(self.study, stage).location() for stage in self.study.stages]
        named = dict.fromkeys(source for entry in corpus for source in (sources if entry == "stages" else [entry]))
        return merged(self.study.backbone, {"scratch": {"corpus": list(named)}})

    def _data(self, stage: str) -> Settings:
        return _data_settings(self.study, stage)

    def _probes(self, names: tuple[str, ...], override: Settings) -> Settings:
        callbacks = []
        for name in names:
            probe = dict(self.study.probes[name])
            data = {"data": self._data(probe.pop("stage", self.study.forget))}
            if holdout := probe.pop("holdout", None):
                data["holdout"] = self._data(holdout)
            callbacks.append(merged(_called(name, probe), {"init_args": {**data, **override}}))
        return {"trainer": {"callbacks": callbacks}}

    def _start_from(self, parents: list[Run]) -> Settings:
        if not parents:
            return {}
        (parent,) = parents
        return {"model": {"init_args": {"backbone": self._backbone_after(parent)}}}

    def _backbone_after(self, parent: Run) -> Settings:
        backbone = parent.config["model"]["init_args"]["backbone"]
        if backbone["lora"] is None:
            return {"model": str(parent.folder / "model")}
        own = str(parent.folder / "adapter")
        if parent.kind == "stage":
            return {"model": backbone["model"], "adapter": own}
        # Unlearning puts a new adapter on top of all, while a stage goes on with the last one.
        earlier = backbone["adapter"]
        return {"model": backbone["model"], "adapter": [*([earlier] if isinstance(earlier, str) else earlier or []), own]}

    def _add(self, name: str, kind: str, config: Settings, parents: list[Run], tags: dict[str, Any]) -> Run:
        resolved = self.resolve(config)
        check_whole(resolved, name)
        inputs, _ = run_inputs(resolved, self.known, self.content)
        key = digest(inputs)
        folder = self.store / f"{resolved['model']['class_path'].rpartition('.')[2]}-{key[:16]}"
        if is_finished(folder):
            refuse_changed(folder, key)
        self.known[str(folder)] = key
        if key not in self.runs:
            hashes = {part: digest(value)[:16] for part, value in inputs.items()}
            self.runs[key] = Run(name, kind, key, folder, {**resolved, "run_folder": str(folder)}, parents, tags, inputs=hashes)
        return self.runs[key]


def _data_settings(study: StudyConfig, stage: str) -> Settings:
    # What a stage holds out is held out of unlearning too, because its probes measure it on every model.
    usual = {"init_args": {"source": study.source, "held_out_examples": HELD_OUT}}
    return merged(usual, study.stages[stage]["data"])


def stage_of(study: StudyConfig, name: str) -> Any:
    """A stage's data (`StageData`), as `stages` and `source` state it."""
    data = _data_settings(study, name)
    return stage_class(data["class_path"])(**(data.get("init_args") or {}))


def check_probe_names(study: StudyConfig) -> None:
    """Refuses two probes of a study whose records would lie in one folder.

    Raises:
        ValueError: two have one name.
    """
    known: dict[str, str] = {}
    for key, probe in study.probes.items():
        name = str((probe.get("init_args") or {}).get("name") or key)
        if (twin := known.setdefault(name, key)) != key:
            raise ValueError(
                f"The probes {twin!r} and {key!r} are both named {name!r}, and would overwrite each other's records: leave "
                "init_args.name out, so that each is named as in `probes`, or give each its own."
            )


def _called(key: str, probe: Settings) -> Settings:
    """A probe's settings with its key in the study as the name of its records, unless it has another."""
    cls = _class_of(probe["class_path"], Probe)
    return probe if getattr(cls, "probe_name", key) == key else merged({"init_args": {"name": key}}, probe)


def stage_class(class_path: str) -> Any:
    """The stage of a class path, or of a short name: built in or of a plug-in."""
    if found := _class_of(class_path, data.StageData):
        return found
    name = class_path
    raise ValueError(
        f"There is no stage {name!r}: give the name of a built-in or plug-in stage, or a class path such as package.module.{name}."
    )


def _class_of(class_path: str, base: Any) -> Any:
    """The class of a class path, or of a short name among a class and those below it; None where there is none."""
    module, _, name = class_path.rpartition(".")
    if module:
        return getattr(import_module(module), name)
    waiting = [base]
    while waiting:
        cls = waiting.pop()
        if cls.__name__ == name:
            return cls
        waiting += cls.__subclasses__()
    return None
