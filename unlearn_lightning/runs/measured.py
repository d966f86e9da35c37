"""What was measured in a run folder, with which settings of each probe, and what is lacking; and the model that the run made.

    unmeasured(folder, config)          # ["rouge"]: the run has no records of this probe at its start and end
    result_backbone(folder)             # the run's backbone settings with its own result on top

`run.json` has it as `probes`: {"forget": {"key": "9f3ac2...", "steps": [0, 16]}}. The key is that of `run_key.probe_key`; the steps are
those of start and end that were recorded. A probe is no part of a run's own key, so this is what tells records of a changed probe from
others.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.records import read_run, record_path, write_json
from unlearn_lightning.records.recovery import original_name, quantised_name
from unlearn_lightning.runs.checkpoint import last_checkpoint
from unlearn_lightning.runs.content import RESULTS, files_of
from unlearn_lightning.runs.metrics_file import MetricsFile
from unlearn_lightning.runs.moved import read_config
from unlearn_lightning.runs.run_key import digest, is_probe, probe_key
from unlearn_lightning.runs.source_hash import named_object

Settings = Mapping[str, Any]
MEASURED = "measured"
"""The kind of a run that trained nothing: a model that came from elsewhere was measured."""
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")


class ChangedProbe(ValueError):
    """A probe was measured with other settings, texts or code than it has now."""


class ResultBackbone(Backbone):
    """The backbone of a finished run with its result on top, which unlearning would freeze under a fresh adapter."""

    def load_for_unlearning(self) -> Any:
        """The network as it was when the run ended, whatever kind of run it was."""
        return self.load_for_fine_tuning()


def probes_of(config: Settings) -> dict[str, Settings]:
    """The probes among a configuration's callbacks, by the names of their records.

    Raises:
        ValueError: two have one name, or one has a name that no folder may have.
    """
    found = config["trainer"]["callbacks"]
    named: dict[str, Settings] = {}
    for probe in found if isinstance(found, list) else [found] if found else []:
        if not is_probe(probe["class_path"]):
            continue
        if (name := probe_name(probe)) in named:
            raise ValueError(f"Several probes are named {name!r}, and would overwrite each other's records: set their init_args.name.")
        if not NAME.fullmatch(name):
            raise ValueError(f"A probe's name is that of its folder of records: letters, digits, _, ., + and -, got {name!r}.")
        named[name] = probe
    return named


def probe_name(probe: Settings) -> str:
    """The name of a probe's records, as its settings or its class give it."""
    return str((probe.get("init_args") or {}).get("name") or named_object(probe["class_path"]).probe_name)


def probe_keys(config: Settings) -> dict[str, str]:
    """What identifies each probe's measurements, by name."""
    return {name: probe_key(probe, config) for name, probe in probes_of(config).items()}


def quantised_keys(config: Settings, kind: str) -> dict[str, str]:
    """What identifies each probe's measurements on quantised weights, by the names of their records.

    Args:
        config: the run's whole configuration.
        kind: nf4 or int8.
    """
    return {quantised_name(name, kind): digest([key, kind]) for name, key in probe_keys(config).items()}


def unmeasured_quantised(folder: Path, config: Settings, kind: str) -> list[str]:
    """The probes, by their own names, that did not measure a finished run's result on quantised weights."""
    keys = quantised_keys(config, kind)
    known = known_probes(folder)
    return [original_name(name) for name, key in keys.items() if not _is_there(folder, name, known.get(name), key)]


def known_probes(folder: Path) -> dict[str, dict[str, Any]]:
    """What run.json says was measured; for runs of before it said so, what their configurations say."""
    run = read_run(folder)
    if "probes" in run:
        return dict(run["probes"])
    return entries(folder, probe_keys(read_config(folder)), run.get("steps") or 0) if (folder / "config.yaml").is_file() else {}


def entries(folder: Path, keys: Mapping[str, str], end: int) -> dict[str, dict[str, Any]]:
    """The part of run.json that says what was measured.

    Args:
        folder: the run folder.
        keys: of the probes, by name.
        end: the run's last step.
    """
    ends = sorted({0, end})
    return {n: {"key": key, "steps": [step for step in ends if record_path(folder, n, step).is_file()]} for n, key in keys.items()}


def changed(folder: Path, keys: Mapping[str, str]) -> list[str]:
    """The probes that were measured there with other settings, texts or code."""
    known = known_probes(folder) if (folder / "run.json").is_file() else {}
    return [name for name, key in keys.items() if name in known and known[name]["key"] != key]


def unmeasured(folder: Path, keys: Mapping[str, str]) -> list[str]:
    """The probes that have no records of a finished run's start and end, or of which some were deleted."""
    known = known_probes(folder)
    return [name for name, key in keys.items() if not _is_there(folder, name, known.get(name), key)]


def _is_there(folder: Path, name: str, entry: Mapping[str, Any] | None, key: str) -> bool:
    return entry is not None and entry["key"] == key and all(record_path(folder, name, step).is_file() for step in entry["steps"])


def refuse_changed_probes(folder: Path, keys: Mapping[str, str], advice: str) -> None:
    """Refuses to put measurements of a changed probe beside those of the former one.

    Raises:
        ChangedProbe: one was measured there with other settings.
    """
    if names := changed(folder, keys):
        raise ChangedProbe(f"{folder}: {', '.join(names)} was measured with other settings, texts or code than now. {advice}")


def tell_unmeasured(folder: Path, keys: Mapping[str, str]) -> None:
    """Says which probes of a command were not measured in the finished run that it names."""
    if names := unmeasured(folder, keys):
        other = f" ({', '.join(found)}: with other settings or code)" if (found := changed(folder, keys)) else ""
        rank_zero_info(
            f"Not measured in it: {', '.join(names)}{other}. `unlearn validate {folder}` with the same --trainer.callbacks measures a "
            "finished run's start and end without training."
        )


def go_on_with_probes(folder: Path, keys: Mapping[str, str], first: bool) -> None:
    """Has a run that goes on from a checkpoint measure what it measured before, as what it had not measured cannot be made up for.

    Args:
        folder: the run folder, which need not exist.
        keys: of the probes of the run that is about to start or go on.
        first: whether this process is the one that writes the folder.

    Raises:
        ChangedProbe: it was begun with other probes.
    """
    if not (folder / "run.json").is_file():
        return
    known, others = known_probes(folder), changed(folder, keys)
    new = [name for name in keys if name not in known]
    if not last_checkpoint(folder).is_file():
        # It begins anew.
        if first:
            delete_records(folder, others)
    elif others or new:
        what = [f"{', '.join(names)} {how}" for names, how in ((others, "had other settings or code"), (new, "was not measured")) if names]
        raise ChangedProbe(
            f"{folder} is a run that was stopped, and until then {' and '.join(what)}. Go on with the probes that it began with, and then "
            f"measure its start and end with `unlearn validate {folder} --trainer.callbacks+ ...`; or delete the folder to begin anew."
        )


def note_measured(folder: Path, keys: Mapping[str, str]) -> None:
    """Writes into run.json that these probes were measured at the run's start and end."""
    run = read_run(folder)
    probes = {**known_probes(folder), **entries(folder, keys, run.get("steps") or 0)}
    known = {name: value for name, value in run.items() if name != "format"}
    write_json(folder / "run.json", {**known, "probes": probes, "files": files_of(folder)}, indent=1)


def delete_records(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Deletes all records of these probes, and their columns in metrics.csv; gives how many steps each had."""
    MetricsFile(folder / "metrics.csv").forget(names)
    found = {name: len(list((folder / "records" / name).glob("*.json"))) for name in names}
    for name in found:
        shutil.rmtree(folder / "records" / name, ignore_errors=True)
    return found


def result_backbone(folder: Path, backbone: Settings) -> dict[str, Any]:
    """The settings of a run's backbone with the run's own result: its weights, or its adapter on top of those it lay on.

    Args:
        folder: a finished run's.
        backbone: the settings with which it was trained.

    Raises:
        FileNotFoundError: the result is gone.
    """
    if read_run(folder)["kind"] == MEASURED:
        return dict(backbone)
    result = next((folder / name for name in RESULTS if (folder / name).is_dir()), None)
    if result is None:
        raise FileNotFoundError(f"{folder} is finished, but its result ({' or '.join(RESULTS)}) is gone: there is no model to measure.")
    if result.name == "model":
        return {**backbone, "model": str(result), "revision": None}
    given = backbone["adapter"]
    earlier = [given] if isinstance(given, str) else list(given or [])
    # A stage goes on with the last adapter; unlearning puts a new one on top of all.
    kept = earlier if read_run(folder)["kind"] == "unlearn" else earlier[:-1]
    return {**backbone, "adapter": [*kept, str(result)]}
