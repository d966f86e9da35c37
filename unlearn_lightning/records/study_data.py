"""A study folder as the report sees it: which runs there are, how far they got and what their probes measured.

study = load_study(Path("studies/demo"))
study.finished("unlearn")[0].metric("forget", "forget/label_log_lik")   # {0: -0.02, 2: -0.4, ...} nats by step
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from unlearn_lightning.records import UnknownFormat, read_run, read_study
from unlearn_lightning.records.entries import no_runs_in
from unlearn_lightning.records.places import missing, place_of
from unlearn_lightning.records.run_records import readable_records
from unlearn_lightning.records.texts import plain_text

Vectors = dict[str, list[float]]
"""Prediction vectors of one model: example id -> per-token log-likelihoods of its probe response, (T,) nats."""

_KNOWN_TAGS = {"seed", "path", "p", "path_name", "objective", "retrained", "retrained_of", "requests", "relearning"}
OBJECTIVE_NAMES = {
    "ga": "GA", "npo": "NPO", "simnpo": "SimNPO", "simnpo_norm": "SimNPO (normalised)", "idk_dpo": "IdkDPO", "altpo": "AltPO", "wga": "WGA",
    "satimp": "SatImp", "ce_u": "CE-U", "undial": "UNDIAL", "kl_ascent": "KL ascent", "random_tokens": "random labels (tokens)",
    "permuted": "random labels (permuted)", "rejection": "random labels (rejection)", "task_vector": "task vector",
    "graddiff": "GradDiff", "npo_retain": "NPO with retain data", "rmu": "RMU", "pdu": "PDU", "pgu": "PGU",
}  # fmt: skip
"""What pages and tables call the objectives that studies name so; others have the name that their study gives them."""


@dataclass(frozen=True)
class TrainingPath:
    """One order of the stages.

    Attributes:
        index: fixes its colour.
        p: position of the forget stage, 1 being first.
        stages: as they were trained.
        label: what legends and tables call it, such as `p=4` or the name it has in the study.
        after: stages trained after the forget stage; where it is smallest, the forget stage was met last.
    """

    index: int
    p: int
    stages: tuple[str, ...]
    label: str
    after: int

    @property
    def arrow(self) -> str:
        """The path's stages in their order, joined by arrows."""
        return " → ".join(self.stages)


@dataclass(eq=False)  # Each run is itself, so that what was computed of it can be remembered.
class RunRecord:
    """One entry of `study.json` joined with its run folder; `info` is `run.json`, empty when there is none."""

    key: str
    name: str
    kind: str
    folder: Path
    parents: list[str]
    tags: dict[str, Any]
    info: dict[str, Any] = field(default_factory=dict)
    _records: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict, repr=False)
    _vectors: dict[int, Vectors] = field(default_factory=dict, repr=False)
    _left_out: list[str] = field(default_factory=list, repr=False)
    _not_finite: dict[str, set[int]] = field(default_factory=dict, repr=False)

    @property
    def status(self) -> str:
        """The status that run.json says: finished, failed, stopped or running; `missing` where there is no such file."""
        return str(self.info.get("status", "missing"))

    @property
    def seed(self) -> int:
        """The seed that the study gave to the run, or else the run's own."""
        return int(self.tags.get("seed", self.info.get("seed", 0)) or 0)

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of the run's path in their order; empty where the run belongs to no path."""
        return tuple(self.tags.get("path") or ())

    @property
    def path_identity(self) -> tuple[int, tuple[str, ...], str]:
        """What tells its path from others: position of the forget stage, stages, and the name in the study, empty for none."""
        return int(self.tags.get("p") or 0), self.stages, str(self.tags.get("path_name") or "")

    @cached_property
    def extra_tags(self) -> dict[str, str]:
        """Tags beyond those of docs/runs.md (a learning rate, a schedule): they tell variants of an objective apart."""
        return {tag: str(value) for tag, value in self.tags.items() if tag not in _KNOWN_TAGS}

    @cached_property
    def objective(self) -> str:
        """The objective's display name with its extra tags, such as `NPO · lr=5e-05`."""
        return self.name_without("")

    def name_without(self, left_out: str) -> str:
        """The objective's display name with all extra tags but one."""
        name = str(self.tags.get("objective", self.info.get("model", "?")))
        extra = [f"{tag}={value}" for tag, value in self.extra_tags.items() if tag != left_out]
        return " · ".join([OBJECTIVE_NAMES.get(name.lower(), name), *extra])

    def records(self, probe: str) -> dict[int, dict[str, Any]]:
        """What `probe` measured, step -> record in step order; empty when the run did not have the probe."""
        if probe not in self._records:
            self._records[probe], left_out = readable_records(self.folder, probe)
            self._left_out += left_out
        return self._records[probe]

    def metric(self, probe: str, name: str) -> dict[int, float]:
        """One metric by step; empty when it was not measured, nan at a step at which it was no finite number."""
        curve = {step: record["metrics"][name] for step, record in self.records(probe).items() if name in record["metrics"]}
        self._note(name, (step for step, value in curve.items() if math.isnan(value)))
        return curve

    def vectors(self, step: int) -> Vectors:
        """The run's prediction vectors at a measured step of the divergence probe."""
        if step not in self._vectors:
            found = {example["id"]: example["token_log_lik"] for example in self.records("divergence")[step]["examples"]}
            self._note("predictions", [step] if any(math.isnan(value) for vector in found.values() for value in vector) else [])
            self._vectors[step] = found
        return self._vectors[step]

    @property
    def problems(self) -> list[str]:
        """What was found wrong with the records that were looked at so far, in a line each."""
        lines = [f"{self.name}: a record is left out, as {left_out}" for left_out in self._left_out[:3]]
        if len(self._left_out) > 3:
            lines.append(f"{self.name}: {len(self._left_out) - 3} more records are left out")
        if self._not_finite:
            where = [f"{name} at step {', '.join(map(str, sorted(steps)))}" for name, steps in sorted(self._not_finite.items())]
            lines.append(f"{self.name}: left out of figures and tables, as no finite numbers: {'; '.join(where)}")
        return lines

    def _note(self, name: str, steps: Iterable[int]) -> None:
        if steps := set(steps):
            self._not_finite.setdefault(name, set()).update(steps)


@dataclass
class Study:
    """All runs of a study, with the paths, objectives and seeds its unlearning runs are spread over.

    `relearning` is what study.json says of each further fine-tuning behind the unlearned models, by name.
    """

    name: str
    folder: Path
    forget: str
    runs: list[RunRecord]
    relearning: dict[str, dict[str, Any]] = field(default_factory=dict)

    def finished(self, kind: str) -> list[RunRecord]:
        """Returns the finished runs of a kind: `stage`, `unlearn`, `request` or `relearn`."""
        return self._finished.get(kind, [])

    @cached_property
    def _finished(self) -> dict[str, list[RunRecord]]:
        found: dict[str, list[RunRecord]] = {}
        for run in self.runs:
            if run.status == "finished":
                found.setdefault(run.kind, []).append(run)
        return found

    @property
    def unfinished(self) -> list[RunRecord]:
        """The runs that are not finished, whatever the reason."""
        return [run for run in self.runs if run.status != "finished"]

    @cached_property
    def paths(self) -> list[TrainingPath]:
        """Named paths in the study's order, others in that of the forget stage's position.

        A path without a name is called by its position, or by its stages where that does not tell it apart.
        """
        found = list(dict.fromkeys(run.path_identity for run in self.runs if run.kind == "unlearn"))
        if not all(name for *_, name in found):
            found.sort(key=lambda path: path[0])
        positions = [p for p, *_ in found]
        return [
            TrainingPath(index, p, stages, name or (f"p={p}" if positions.count(p) == 1 else "→".join(stages)), self._after(p, stages))
            for index, (p, stages, name) in enumerate(found)
        ]

    @property
    def last_paths(self) -> list[TrainingPath]:
        """The paths that met the forget stage last: those with the fewest stages after it."""
        return [path for path in self.paths if path.after == min(other.after for other in self.paths)]

    def _after(self, p: int, stages: tuple[str, ...]) -> int:
        return len(stages) - (stages.index(self.forget) + 1 if self.forget in stages else p)

    def path_of(self, run: RunRecord) -> TrainingPath:
        """Returns the path that a run of the study belongs to."""
        p, stages, name = run.path_identity
        return self._path_by_identity.get((p, stages, name)) or self._path_by_identity[p, stages, ""]

    @cached_property
    def _path_by_identity(self) -> dict[tuple[int, tuple[str, ...], str], TrainingPath]:
        named = {(path.p, path.stages, path.label): path for path in self.paths}
        # A run without a name belongs to the path of its stages, whatever that is called.
        return {(path.p, path.stages, ""): path for path in reversed(self.paths)} | named

    @cached_property
    def objectives(self) -> list[str]:
        """The names of the unlearning objectives, in the order in which the study runs them."""
        return _in_order(run.objective for run in self.runs if run.kind == "unlearn")

    @cached_property
    def seeds(self) -> list[int]:
        """The seeds of all runs in ascending order."""
        return sorted({run.seed for run in self.runs})

    def retrained(self, seed: int, path: Sequence[str]) -> RunRecord | None:
        """The finished run of a path's stages without the forget stage, or None."""
        without = tuple(stage for stage in path if stage != self.forget)
        tagged = [run for run in self.finished("stage") if run.tags.get("retrained") and run.seed == seed]
        return next((run for run in tagged if _retrained_path(run) in (tuple(path), without)), None)

    def unlearned(self, objective: str, path: TrainingPath) -> list[RunRecord]:
        """The finished unlearning runs of one objective on one path, one per seed."""
        return self._unlearned.get((objective, path.index), [])

    @cached_property
    def _unlearned(self) -> dict[tuple[str, int], list[RunRecord]]:
        found: dict[tuple[str, int], list[RunRecord]] = {}
        for run in self.finished("unlearn"):
            found.setdefault((run.objective, self.path_of(run).index), []).append(run)
        return found

    @cached_property
    def retain_name(self) -> str:
        """Which retain probe is the retention: `tofu` where it was measured, otherwise the first one there is."""
        names = _in_order(
            metric.removeprefix("retain/").removesuffix("_log_lik")
            for run in self.finished("unlearn")
            for record in list(run.records("retain").values())[:1]
            for metric in record.get("metrics", {})
            if metric.endswith("_log_lik")
        )
        return "tofu" if "tofu" in names or not names else names[0]

    @property
    def retain_title(self) -> str:
        """The name of the retained data set as tables print it."""
        return self.retain_name.upper() if self.retain_name == "tofu" else self.retain_name


def load_study(folder: Path) -> Study:
    """Read `study.json` and every `run.json` it names.

    Raises:
        FileNotFoundError: `folder` holds no `study.json`.
        ValueError: a file has a format this version does not know.
    """
    if not (folder / "study.json").is_file():
        is_run = (folder / "run.json").is_file()
        raise FileNotFoundError(f"{folder} is a run, not a study; `unlearn report {folder}` is about it." if is_run else no_runs_in(folder))
    content = read_study(folder)
    runs = []
    if (gone := missing(folder, content["runs"])) and not any(place_of(folder, entry).is_dir() for entry in content["runs"]):
        raise FileNotFoundError(gone)
    for entry in content["runs"]:
        run_folder = place_of(folder, entry).resolve()
        info = _info(run_folder)
        tags = entry.get("tags") or {}
        runs.append(RunRecord(entry["key"], plain_text(entry["name"]), entry["kind"], run_folder, entry.get("parents") or [], tags, info))
    name, forget = content.get("name", folder.name), content.get("forget", "the forget stage")
    return Study(name, folder, forget, runs, content.get("relearning") or {})


def _retrained_path(run: RunRecord) -> tuple[str, ...]:
    """The path that a retrained model says it belongs to, or its own stages, which are those of the path without the forget stage."""
    return tuple(run.tags.get("retrained_of") or run.stages)


def _info(run_folder: Path) -> dict[str, Any]:
    """What run.json says; where it is damaged, that it is unreadable and why."""
    try:
        return read_run(run_folder) if (run_folder / "run.json").is_file() else {}
    except UnknownFormat:
        raise
    except ValueError as error:
        return {"status": "unreadable", "error": str(error)}


def _in_order(items: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(items))
