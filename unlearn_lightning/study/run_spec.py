"""The specification of one run: a file that tells the process which executes the run all it needs to know.

write_spec(Path("runs/demo/jobs/seed1-p4-npo.json"), job)
unlearn_lightning.study.one_run runs/demo/jobs/seed1-p4-npo.json      # python -m ...: executes it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unlearn_lightning.records import is_finished, read_json, read_run, record_path, write_json
from unlearn_lightning.study.study_config import Settings, merged

if TYPE_CHECKING:
    from unlearn_lightning.study.run import Run


@dataclass(frozen=True)
class RunSpec:
    """The specification of one run that is ready to be executed.

    Attributes:
        key, name, kind, folder: of the run.
        config: its whole `unlearn fit` configuration, but for the runs it is compared with.
        wandb: settings of its W&B run.
        threads: CPU threads; null for torch's own choice.
        compare: the run folders that its divergence probe may compare with, by name.
        parents: the run folders that it starts from.
        quantised: the kinds of weights on which its result is measured again.
        measure: train nothing, and measure these probes; null to train what is not finished, and measure what its probes lack.
    """

    key: str
    name: str
    kind: str
    folder: Path
    config: Settings
    wandb: dict[str, Any]
    threads: int | None = None
    compare: dict[str, Path] = field(default_factory=dict)
    parents: tuple[Path, ...] = ()
    measure: tuple[str, ...] | None = None
    quantised: tuple[str, ...] = ()


def write_spec(path: Path, job: RunSpec) -> None:
    """Writes the specification of a run into a file."""
    compare = {name: str(folder) for name, folder in job.compare.items()}
    paths = {"folder": str(job.folder), "compare": compare, "parents": [str(folder) for folder in job.parents]}
    write_json(path, asdict(job) | paths, indent=1)


def read_spec(path: Path) -> RunSpec:
    """Reads the specification of a run from its file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or of another version.
    """
    content = read_json(path)
    content.pop("format")
    compare = {name: Path(folder) for name, folder in content.pop("compare").items()}
    parents = tuple(Path(folder) for folder in content.pop("parents", ()))
    named = content.pop("measure", None)
    measure = None if named is None else tuple(named)
    lists = {"compare": compare, "parents": parents, "measure": measure, "quantised": tuple(content.pop("quantised", ()))}
    return RunSpec(**{**content, "folder": Path(content["folder"]), **lists})


def with_comparisons(config: Settings, compare: Mapping[str, Path]) -> Settings:
    """The run's configuration with the runs that its divergence probe, and probes of the retrained model itself, compare with by now.

    The retrained model is always among them; of the sibling paths those that are finished. The report compares all with all.
    """
    callbacks = []
    for probe in config["trainer"]["callbacks"] or []:
        if asks_retrained(probe) and (model := compare.get("retrained")) and is_finished(model):
            probe = merged(probe, {"init_args": {"retrained": str(model)}})
        if probe["class_path"].rpartition(".")[2] == "PathDivergence" and compare:
            name = probe["init_args"].get("name") or "divergence"
            there = {n: str(f) for n, f in compare.items() if is_finished(f) and record_path(f, name, 0).is_file()}
            retrained = there.pop("retrained", None)
            probe = merged(probe, {"init_args": {"retrained": retrained, "others": there}})
        callbacks.append(probe)
    return {**config, "trainer": {**config["trainer"], "callbacks": callbacks}}


def asks_retrained(probe: Mapping[str, Any]) -> bool:
    """Whether a probe needs the retrained model itself, such as RetrainedDistribution, and nobody has named another one."""
    from unlearn_lightning.runs.source_hash import named_object  # This import loads torch, which launchers do not need.

    if (probe.get("init_args") or {}).get("retrained") is not None:
        return False
    return getattr(named_object(probe["class_path"]), "compares", "") == "model"


def failure(folder: Path) -> str | None:
    """Why the run in this folder failed; None when it did not."""
    content = read_run(folder) if (folder / "run.json").is_file() else {}
    return str(content["error"]) if content.get("status") == "failed" else None


def note_failure(run: RunSpec | Run, why: str) -> None:
    """Says in run.json that the run failed, where the run itself could not."""
    if failure(run.folder) is None and not is_finished(run.folder):
        write_json(run.folder / "run.json", {"status": "failed", "kind": run.kind, "key": run.key, "error": why}, indent=1)
