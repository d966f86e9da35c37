"""What a study is: stages, their orders, objectives, probes and seeds. One YAML file, every key a flag too.

study = StudyConfig(name="demo", forget="safety", order=("inst", "tofu", "math"), ...)
study.all_paths()[3]      # StudyPath("p4", ("inst", "tofu", "math", "safety"), p=4, retrained=("inst", "tofu", "math"))
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from unlearn_lightning.records.recovery import QUANTISATIONS
from unlearn_lightning.records.texts import check_name
from unlearn_lightning.study.relearning import Relearning, read_relearning

# Not dict[str, Any]: jsonargparse would fill in the arguments of any class_path it meets there.
Settings = dict
# Five requests have 120 orders and 325 runs.
MOST_REQUESTS = 5


@dataclass(frozen=True)
class StudyPath:
    """One order of stages that is unlearned.

    Attributes:
        name: p1, p2, ... or the name it has in `paths`.
        stages: as they are trained.
        p: position of the forget stage, 1 being first.
        retrained: the same stages without the forget stage; null where no retrained model is wanted.
        named: the name was given in `paths`.
    """

    name: str
    stages: tuple[str, ...]
    p: int
    retrained: tuple[str, ...] | None
    named: bool = False

    @property
    def tags(self) -> dict[str, Any]:
        """Returns the tags by which the runs at the end of this path name it."""
        return {"p": self.p, **({"path_name": self.name} if self.named else {})}


@dataclass(frozen=True)
class StudyConfig:
    """A tree of runs: each path's stages, then each objective on each path's model.

    Args:
        name: of the study and its folder.
        forget: the stage to be unlearned.
        stages: stage name -> settings of its fine-tuning (`model`, `data`, `trainer`, as in `unlearn fit`).
        objectives: name -> settings of its unlearning; its data is the forget stage's. Variants of one objective say so with
            `tags`, for example `{objective: npo, lr: 5.0e-5}`, and the report shows them side by side. `retain` adds a retain term
            whose data is a stage's: `{stage: tofu, loss: cross_entropy, weight: 1.0}`.
        backbone: of the whole study.
        order: the other stages, in the order in which they are trained; the forget stage is inserted at each of `positions`.
        positions: where the forget stage is inserted, 1 being first; null for everywhere.
        paths: instead of `order` and `positions`, name -> all stages of a path in their order, such as `{RCU: [R, C, U], CRU: [C, R, U]}`.
        base: settings of a base training before the stages; null where the backbone is trained already.
        common: settings of all runs.
        fine_tuning: settings of all stages.
        unlearning: settings of all objectives.
        probes: name -> `class_path`, `stage` (whose data is measured) and `init_args` of a probe callback; of MembershipInference also
            `holdout`, the stage whose texts were never trained on.
        stage_probes: names of the probes that also measure the stages, at their start and end.
        retrained: also train each path without the forget stage; paths that then are the same share that model. The name of a stage has
            that one take the forget stage's place, as TOFU's retain99 does, where the forget stage also holds what is kept.
        unlearned: the stage whose data is unlearned, where it is a part of the forget stage's data; null for the forget stage's own.
        requests: also unlearn the forget set in so many parts, one after the other in every order; null for at once only. 3 parts are 15
            more runs for each objective, path and seed, 4 are 64.
        quantised: also measure the result of every objective with its backbone at `nf4` or `int8`, or both, which trains nothing and
            changes no key; the report says what share of unlearning that undoes.
        relearning: name -> settings of a further fine-tuning behind each unlearned and each retrained model, which tells how many steps it
            takes until all is back: `{examples: 16, steps: 24}` trains on the forget set's first examples, `stage` on another stage's data
            (benign relearning). `metric` (forget/label_log_lik) is back within `tolerance` (0.1) of its value before unlearning; it is
            measured `every_n_steps` (1). `probes` names more to measure at start and end; `model`, `data` and `trainer` as in `stages`.
        seeds: every run is repeated with each.
        source: of the data of every stage that does not state its own (`world`, `files`, `hub`, ...).
        threads: CPU threads per run; small models are fastest with 1.
    """

    name: str
    forget: str
    stages: dict[str, Settings]
    objectives: dict[str, Settings]
    backbone: Settings
    order: tuple[str, ...] = ()
    positions: tuple[int, ...] | None = None
    paths: dict[str, tuple[str, ...]] | None = None
    base: Settings | None = None
    common: Settings = field(default_factory=dict)
    fine_tuning: Settings = field(default_factory=dict)
    unlearning: Settings = field(default_factory=dict)
    probes: dict[str, Settings] = field(default_factory=dict)
    stage_probes: tuple[str, ...] = ()
    retrained: bool | str = True
    unlearned: str | None = None
    requests: int | None = None
    quantised: tuple[str, ...] = ()
    relearning: dict[str, Settings] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)
    source: str = "world"
    threads: int | None = None

    def __post_init__(self) -> None:
        check_name(self.name, "A study's name")
        for name in [*self.stages, *self.objectives, *self.probes]:
            check_name(str(name), "The name of a stage, objective or probe")
        trained = {stage for path in (self.paths or {}).values() for stage in path}
        retained = {retain.get("stage") for settings in self.objectives.values() if (retain := settings.get("retain"))}
        if None in retained:
            raise ValueError("An objective's `retain` names the stage that is kept, such as {stage: tofu, weight: 1.0}.")
        probed = {probe.get("stage", self.forget) for probe in self.probes.values()}
        probed |= {probe["holdout"] for probe in self.probes.values() if probe.get("holdout")}
        others = {name for name in (self.retrained, self.unlearned) if isinstance(name, str)}
        named = {self.forget, *self.order, *trained, *retained, *probed, *others}
        for stage in sorted(named - self.stages.keys()):
            raise ValueError(f"Study {self.name!r} names the stage {stage!r}, but `stages` has {sorted(self.stages)}.")
        self._check_order() if self.paths is None else self._check_paths(self.paths)
        if self.requests is not None and not 2 <= self.requests <= MOST_REQUESTS:
            raise ValueError(f"`requests` is the number of parts of the forget set, 2 to {MOST_REQUESTS}; got {self.requests}.")
        self._check_quantised()
        for one in self.each_relearning():
            one.check(self.stages.keys(), self.probes.keys())
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` needs at least one seed, and each once; got {list(self.seeds)}.")
        if unknown := set(self.stage_probes) - self.probes.keys():
            raise ValueError(f"`stage_probes` names {sorted(unknown)}, but `probes` has {sorted(self.probes)}.")

    def _check_quantised(self) -> None:
        if unknown := [kind for kind in self.quantised if kind not in QUANTISATIONS]:
            raise ValueError(f"`quantised` takes {' and '.join(QUANTISATIONS)}; got {', '.join(map(str, unknown))}.")
        if len(set(self.quantised)) < len(self.quantised):
            raise ValueError(f"`quantised` names each kind of weights once; got {list(self.quantised)}.")
        if self.quantised and (trained := self.backbone.get("quantization")):
            raise ValueError(
                f"`quantised` measures results on other weights than they were trained on, but the backbone is {trained} already: leave "
                "`quantised` out, or set backbone.quantization to null."
            )
        scratch = self.backbone.get("model") is None and self.base is None
        if self.quantised and scratch and self.backbone.get("lora") is not None:
            raise ValueError(
                "`quantised` needs a base that is kept somewhere, but this one has random weights: name a model, or add `base`."
            )

    def _check_order(self) -> None:
        if self.forget in self.order or len(set(self.order)) < len(self.order):
            raise ValueError(f"`order` holds the stages other than {self.forget!r}, each once; got {list(self.order)}.")
        last = len(self.order) + 1
        if self.positions is not None and not all(1 <= p <= last for p in self.positions):
            raise ValueError(f"`positions` are between 1 and {last}; got {list(self.positions)}.")

    def _check_paths(self, paths: dict[str, tuple[str, ...]]) -> None:
        if self.order or self.positions is not None:
            raise ValueError("`paths` takes the place of `order` and `positions`: set `order` to [] and leave `positions` out.")
        if not paths:
            raise ValueError("`paths` needs at least one path, such as {first: [safety, tofu], last: [tofu, safety]}.")
        known: dict[tuple[str, ...], str] = {}
        for name, path in paths.items():
            check_name(name, "The name of a path")
            if name == "retrained":
                raise ValueError("A path is not `retrained`, which is the name of another model: give it another name.")
            if list(path).count(self.forget) != 1:
                raise ValueError(f"The path {name!r} must hold the forget stage {self.forget!r} once; got {list(path)}.")
            if twin := known.get(tuple(path)):
                raise ValueError(f"The paths {twin!r} and {name!r} are the same, {list(path)}: leave one of them out.")
            known[tuple(path)] = name

    def all_paths(self) -> list[StudyPath]:
        """The study's paths, in the order of the forget stage's position or of `paths`."""
        if self.paths is not None:
            found = [(name, tuple(path), list(path).index(self.forget) + 1) for name, path in self.paths.items()]
        else:
            positions = sorted(self.positions or range(1, len(self.order) + 2))
            found = [(f"p{p}", (*self.order[: p - 1], self.forget, *self.order[p - 1 :]), p) for p in positions]
        return [
            StudyPath(name, stages, p, self._without_forget(stages) if self.retrained else None, self.paths is not None)
            for name, stages, p in found
        ]

    def retrained_paths(self) -> list[tuple[str, ...]]:
        """The retrained models' paths, each once; an empty one is the base itself."""
        return list(dict.fromkeys(path.retrained for path in self.all_paths() if path.retrained is not None))

    def each_relearning(self) -> list[Relearning]:
        """The further fine-tunings of `relearning`, checked."""
        return [read_relearning(name, given) for name, given in self.relearning.items()]

    def other_stages(self) -> list[str]:
        """All stages but the forget stage, in the order in which the paths bring them up."""
        return list(dict.fromkeys(stage for path in self.all_paths() for stage in self._remainder(path.stages)))

    def _without_forget(self, path: tuple[str, ...]) -> tuple[str, ...]:
        """The retrained model's path."""
        if not isinstance(self.retrained, str):
            return self._remainder(path)
        return tuple(self.retrained if stage == self.forget else stage for stage in path)

    def _remainder(self, path: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(stage for stage in path if stage != self.forget)


def merged(*layers: Settings) -> Settings:
    """Deep merge of settings: later wins, mappings are merged, lists replaced; a new class_path drops the old one's init_args."""
    result: Settings = {}
    for layer in layers:
        for key, value in layer.items():
            old = result.get(key)
            if isinstance(value, dict) and isinstance(old, dict):
                changed = "class_path" in value and "class_path" in old and value["class_path"] != old["class_path"]
                kept = {k: v for k, v in old.items() if k != "init_args"} if changed else old
                result[key] = merged(kept, value)
            else:
                result[key] = merged(value) if isinstance(value, dict) else value
    return result
