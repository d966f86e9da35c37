"""Probes that finished runs of a study were not measured by: a new one is measured on their saved models, and nothing is trained again.

to_measure(runs, None)              # {"77aa...": ["rouge"]}
begun_with(config, folder)          # a stopped run goes on with the probes that it began with
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from unlearn_lightning.records import is_finished
from unlearn_lightning.records.recovery import original_name, quantised_name
from unlearn_lightning.study.run import Run
from unlearn_lightning.study.run_spec import asks_retrained
from unlearn_lightning.study.study_config import Settings


def lacking(run: Run, named: Collection[str] | None) -> list[str]:
    """The probes of a finished run, or those of them that are named, of which it has no records of start and end as they are now."""
    from unlearn_lightning.runs.measured import probe_keys, unmeasured

    keys = probe_keys(run.config)
    found = unmeasured(run.folder, {name: key for name, key in keys.items() if named is None or name in named})
    again = [(kind, name) for kind in run.quantised for name in on_quantised(run.config, run.folder, kind, named)]
    return [*found, *(quantised_name(name, kind) for kind, name in again)]


def on_quantised(config: Settings, folder: Path, kind: str, named: Collection[str] | None) -> list[str]:
    """The probes, or those of them that are named, that have not measured a finished run's result on quantised weights.

    Args:
        config: the run's whole configuration.
        folder: the run folder.
        kind: nf4 or int8.
        named: only these; null for all.
    """
    from unlearn_lightning.runs.measured import unmeasured_quantised

    return [name for name in unmeasured_quantised(folder, config, kind) if named is None or name in named]


def waited(config: Settings, folder: Path, retrained: Path | None) -> list[str]:
    """The probes of the retrained model itself that a finished run could not measure, as that model was not there yet.

    Args:
        config: the run's whole configuration.
        folder: the run folder.
        retrained: the retrained model's; null where there is none.
    """
    from unlearn_lightning.runs.measured import known_probes, probes_of
    from unlearn_lightning.runs.moved import read_config

    if retrained is None or not is_finished(retrained) or not is_finished(folder):
        return []
    known = known_probes(folder)
    open_ones = [n for n, probe in probes_of(config).items() if asks_retrained(probe) and known.get(n, {"steps": [0]})["steps"] == []]
    # Where the run knew the retrained model, the probe had another reason, such as no held-out examples.
    trained = probes_of(read_config(folder)) if open_ones else {}
    return [name for name in open_ones if name in trained and asks_retrained(trained[name])]


def to_measure(runs: Sequence[Run], named: Collection[str] | None) -> dict[str, list[str]]:
    """What is to be measured on the finished runs, by their keys.

    Raises:
        ChangedProbe: a run was measured with other settings of a probe, and nobody named it.
    """
    from unlearn_lightning.runs.measured import ChangedProbe, changed, probe_keys

    former: Counter[str] = Counter()
    for run in runs:
        former.update(name for name in changed(run.folder, probe_keys(run.config)) if named is None)
    if former:
        counts = ", ".join(f"{name} on {count} run{'s' * (count > 1)}" for name, count in former.items())
        raise ChangedProbe(
            f"Measured before with other settings, texts or code than `probes` has now: {counts}. Name the new one otherwise, so that both "
            f"stand beside each other, or have new records of start and end in place of its former ones: --measure {next(iter(former))}."
        )
    found = {run.key: [*lacking(run, named), *_waited(run, named)] for run in runs if is_finished(run.folder)}
    return {key: names for key, names in found.items() if names}


def _waited(run: Run, named: Collection[str] | None) -> list[str]:
    retrained = run.compare.get("retrained")
    return [name for name in waited(run.config, run.folder, retrained.folder if retrained else None) if named is None or name in named]


def account(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each probe that is measured on finished runs."""
    counts = Counter(name for names in missing.values() for name in names)
    return [_account(name, f"{count} finished run{'s' * (count > 1)}") for name, count in counts.items()]


def _account(name: str, runs: str) -> str:
    if original_name(name) != name:
        return f"{name}: measured on the results of {runs} with quantised weights; nothing is trained again."
    return f"{name}: measured on the saved models of {runs}, start and end; no steps between, and nothing is trained again."


def begun_with(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The configuration without the probes that a stopped run, which goes on from its checkpoint, did not begin with."""
    from unlearn_lightning.runs.checkpoint import last_checkpoint
    from unlearn_lightning.runs.measured import known_probes, probe_name
    from unlearn_lightning.runs.run_key import is_probe

    if is_finished(folder) or not last_checkpoint(folder).is_file() or not (folder / "run.json").is_file():
        return config
    known = known_probes(folder)
    callbacks = config["trainer"]["callbacks"] or []
    kept = [one for one in callbacks if not is_probe(one["class_path"]) or probe_name(one) in known]
    return {**config, "trainer": {**config["trainer"], "callbacks": kept}}
