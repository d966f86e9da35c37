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
from unlearn_lightning.study.run import Run


def lacking(run: Run, named: Collection[str] | None) -> list[str]:
    """The probes of a finished run, or those of them that are named, of which it has no records of start and end as they are now."""
    from unlearn_lightning.runs.measured import probe_keys, unmeasured

    keys = probe_keys(run.config)
    return unmeasured(run.folder, {name: key for name, key in keys.items() if named is None or name in named})


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
    found = {run.key: lacking(run, named) for run in runs if is_finished(run.folder)}
    return {key: names for key, names in found.items() if names}


def account(missing: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for each probe that is measured on finished runs."""
    counts = Counter(name for names in missing.values() for name in names)
    return [
        f"{name}: measured on the saved models of {count} finished run{'s' * (count > 1)}, start and end; no steps between, and nothing "
        "is trained again."
        for name, count in counts.items()
    ]


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
