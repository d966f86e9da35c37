"""What a study is: stages, where the forget stage is inserted, objectives, probes and seeds. One YAML file, every key a flag too.

study = StudyConfig(name="demo", forget="safety", order=("inst", "tofu", "math"), ...)
study.paths()       # {1: ("safety", "inst", "tofu", "math"), ..., None: ("inst", "tofu", "math")}, None being the retrained model
"""

from __future__ import annotations

from dataclasses import dataclass, field

# Not dict[str, Any]: jsonargparse would fill in the arguments of any class_path it meets there.
Settings = dict


@dataclass(frozen=True)
class StudyConfig:
    """A tree of runs: each path's stages, then each objective on each path's model.

    Args:
        name: of the study and its folder.
        forget: the stage to be unlearned.
        order: the other stages, in the order in which they are trained.
        stages: stage name -> settings of its fine-tuning (`model`, `data`, `trainer`, as in `unlearn fit`).
        objectives: name -> settings of its unlearning; its data is the forget stage's. Variants of one objective say so with
            `tags`, for example `{objective: npo, lr: 5.0e-5}`, and the report shows them side by side.
        backbone: of the whole study.
        base: settings of a base training before the stages; null where the backbone is trained already.
        common: settings of all runs.
        fine_tuning: settings of all stages.
        unlearning: settings of all objectives.
        probes: name -> `class_path`, `stage` (whose data is measured) and `init_args` of a probe callback.
        stage_probes: names of the probes that also measure the stages, at their start and end.
        positions: where the forget stage is inserted, 1 being first; null for everywhere.
        retrained: also train the path without the forget stage.
        seeds: every run is repeated with each.
        source: of the data of every stage that does not state its own (`world`, `files`, `hub`, ...).
        threads: CPU threads per run; small models are fastest with 1.
    """

    name: str
    forget: str
    order: tuple[str, ...]
    stages: dict[str, Settings]
    objectives: dict[str, Settings]
    backbone: Settings
    base: Settings | None = None
    common: Settings = field(default_factory=dict)
    fine_tuning: Settings = field(default_factory=dict)
    unlearning: Settings = field(default_factory=dict)
    probes: dict[str, Settings] = field(default_factory=dict)
    stage_probes: tuple[str, ...] = ()
    positions: tuple[int, ...] | None = None
    retrained: bool = True
    seeds: tuple[int, ...] = (0,)
    source: str = "world"
    threads: int | None = None

    def __post_init__(self) -> None:
        named = {self.forget, *self.order, *(probe.get("stage", self.forget) for probe in self.probes.values())}
        for stage in sorted(named - self.stages.keys()):
            raise ValueError(f"Study {self.name!r} names the stage {stage!r}, but `stages` has {sorted(self.stages)}.")
        if self.forget in self.order or len(set(self.order)) < len(self.order):
            raise ValueError(f"`order` holds the stages other than {self.forget!r}, each once; got {list(self.order)}.")
        last = len(self.order) + 1
        if self.positions is not None and not all(1 <= p <= last for p in self.positions):
            raise ValueError(f"`positions` are between 1 and {last}; got {list(self.positions)}.")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` needs at least one seed, and each once; got {list(self.seeds)}.")
        if unknown := set(self.stage_probes) - self.probes.keys():
            raise ValueError(f"`stage_probes` names {sorted(unknown)}, but `probes` has {sorted(self.probes)}.")

    def paths(self) -> dict[int | None, tuple[str, ...]]:
        """Position of the forget stage -> path; position None is the retrained model's."""
        found: dict[int | None, tuple[str, ...]] = {None: self.order} if self.retrained else {}
        for p in self.positions or range(1, len(self.order) + 2):
            found[p] = (*self.order[: p - 1], self.forget, *self.order[p - 1 :])
        return found


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
