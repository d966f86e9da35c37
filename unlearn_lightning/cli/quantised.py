"""A finished run is measured again with its backbone quantised: does what was unlearned come back?

    unlearn validate runs/forgotten --model.backbone.quantization nf4
    measure_quantised(Path("runs/forgotten"), config, "nf4")       # what the command does

The adapters stay as they are above the quantised weights; where all weights were trained, those are quantised. Records are those of the
run's own probes under further names, such as `forget.nf4`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from unlearn_lightning.cli.measuring import is_first, measure_result
from unlearn_lightning.cli.terminal import printable
from unlearn_lightning.models.backbone import Lora
from unlearn_lightning.records import is_finished
from unlearn_lightning.records.recovery import QUANTISATIONS, original_name, quantised_name, recoveries
from unlearn_lightning.runs.content import refuse_changed
from unlearn_lightning.runs.measured import delete_records, known_probes, note_measured, probes_of, quantised_keys, result_backbone

FLAG = "--model.backbone.quantization"


def asked(words: Sequence[str], trained: Mapping[str, Any]) -> tuple[str | None, list[str]]:
    """The quantisation that a command asks for and the run did not train with, and the other words of the command.

    Raises:
        ValueError: it is no quantisation, or the run was trained with another one.
    """
    kind, rest, waiting = None, [], iter(words)
    for word in waiting:
        name, equals, value = word.partition("=")
        if name == FLAG:
            kind = value if equals else next(waiting, "")
        else:
            rest.append(word)
    own = trained["model"]["init_args"]["backbone"]["quantization"]
    if kind is None or kind == own or (own is None and kind == "null"):
        return None, rest
    if kind not in QUANTISATIONS:
        raise ValueError(f"{FLAG}: expected one of {', '.join(QUANTISATIONS)}, got {kind!r}.")
    if own is not None:
        raise ValueError(f"The run was trained on {own} weights, so there is nothing to be quantised to {kind}. Measure one that was not.")
    return kind, rest


def measure_quantised(folder: Path, config: Mapping[str, Any], kind: str, named: Collection[str] | None = None) -> list[str]:
    """Measures a run's result with its backbone quantised, where that was not measured yet; gives the names of the probes measured.

    Args:
        folder: the run folder.
        config: the run's whole configuration with its probes.
        kind: nf4 or int8.
        named: only these probes, and again where they were measured before; null for all.

    Raises:
        ValueError: the run is not finished, its result was changed, or there is no such probe.
    """
    if not is_finished(folder):
        raise ValueError(f"{folder} holds no finished run, so there is no result to measure: the command that began it ends it.")
    refuse_changed(folder)
    probes = probes_of(config)
    if unknown := set(named or ()) - probes.keys():
        raise ValueError(f"There is no probe {', '.join(sorted(unknown))}; there are {', '.join(probes) or 'none'}.")
    keys = {name: key for name, key in quantised_keys(config, kind).items() if named is None or original_name(name) in named}
    known = known_probes(folder)
    todo = [name for name, key in keys.items() if named is not None or known.get(name, {}).get("key") != key]
    if not todo:
        return []
    if is_first():
        delete_records(folder, [name for name in todo if name in known])
    backbone = result_backbone(folder, config["model"]["init_args"]["backbone"])
    # A fresh adapter says nothing: with one, quantised weights are a network like any other.
    backbone |= {"quantization": kind, "scratch": None, "lora": backbone["lora"] or asdict(Lora())}
    wanted = [_alone(probe, quantised_name(name, kind)) for name, probe in probes.items() if quantised_name(name, kind) in todo]
    measure_result(folder, config, backbone, wanted)
    if is_first():
        note_measured(folder, {name: keys[name] for name in todo})
    return todo


def _alone(probe: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The probe under another name, and compared with no other model."""
    settings = {**(probe.get("init_args") or {}), "name": name}
    nothing: dict[str, Any] = {"retrained": None, "others": {}}
    return {**probe, "init_args": settings | {key: value for key, value in nothing.items() if key in settings}}


def print_recovery(folder: Path) -> None:
    """Prints before, after and quantised of every metric, and the share of the change that quantising undoes."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("quantity", "weights"):
        table.add_column(title, overflow="fold")
    for title in ("before", "unlearned", "quantised", "share recovered"):
        table.add_column(title, justify="right")
    for one in recoveries(folder):
        share = "undefined: nothing changed" if one.before == one.unlearned else "-" if math.isnan(one.share) else f"{one.share:.0%}"
        values = (f"{value:.4g}" for value in (one.before, one.unlearned, one.quantised))
        table.add_row(Text(printable(one.metric)), one.kind, *values, share)
    Console().print(table)
