"""`unlearn theory`: the linear model's theorem and what lies around it, as tables, figures and files.

unlearn theory --orders '[UAB, AUB, ABU]' --distribution heavy_tailed --folder runs/theory
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import jsonargparse
from rich.console import Console

from unlearn_lightning.cli.line_parser import LineParser
from unlearn_lightning.cli.terminal import terminal_console
from unlearn_lightning.records import write_json, write_text
from unlearn_lightning.theory.findings import measure
from unlearn_lightning.theory.parts import Levels, Part, certificates_part, removal_part, survival_part, theorem_part
from unlearn_lightning.theory.setup import Setup
from unlearn_lightning.theory.survival import survival

PartName = Literal["theorem", "extensions", "certificates", "removal"]
PARTS: tuple[PartName, ...] = ("theorem", "removal", "extensions", "certificates")
OWN = ("folder", "parts", "seeds", "first_seed", "steps", "tolerance", "extension_steps", "draws", "levels")


def parser() -> jsonargparse.ArgumentParser:
    """Describes the arguments of `unlearn theory`."""
    found = LineParser(
        prog="unlearn theory", description="The over-parameterised linear model: theorem, extensions, certificates, removal."
    )
    found.add_argument("--config", action="config", help="A YAML file with any of these settings.")
    found.add_argument("--folder", default="runs/theory", help="Where tables, figures and numbers go.")
    found.add_argument("--parts", type=tuple[PartName, ...], default=PARTS, help="What to compute.")
    found.add_argument("--seeds", type=int, default=20, help="Number of independent draws.")
    found.add_argument("--first_seed", type=int, default=0, help="The first draw's seed.")
    found.add_argument("--steps", type=int | None, default=None, help="Unlearning steps; null for a quarter beyond the last t0 and t*.")
    found.add_argument("--tolerance", type=float, default=0.01, help="The corollary's epsilon: RE distance taken as equal.")
    found.add_argument("--extension_steps", type=int, default=400, help="Unlearning steps of the extensions.")
    found.add_argument("--draws", type=int, default=400, help="Independent draws for the certificates.")
    found.add_class_arguments(Levels, "levels")
    found.add_class_arguments(Setup, as_group=False)
    return found


def theory(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    options = parser().parse_args(list(arguments)).as_dict()
    own = {name: options.pop(name) for name in OWN}
    options.pop("config")
    for name, least in {"seeds": 1, "steps": 1, "extension_steps": 8, "draws": 1}.items():
        if own[name] is not None and own[name] < least:
            raise ValueError(f"{name} must be at least {least}, got {own[name]}.")
    show(Setup(**options), own, terminal_console())
    return 0


def show(setup: Setup, own: dict[str, Any], console: Console) -> None:
    """Computes the asked parts, prints their tables, and writes everything below `folder`."""
    from unlearn_lightning.theory.figure import save_survival, save_theorem

    folder = Path(own["folder"])
    written: dict[str, Any] = {}
    files: list[Path] = []
    for part, found in _parts(setup, own, console):
        console.print(replace(part.table, title=part.heading, note=part.caption).terminal(), "")
        written[part.key] = part.records
        write_text(folder / f"{part.key}.csv", _csv(part.records))
        write_text(folder / f"{part.key}.md", f"{part.table.markdown()}\n{part.caption}\n")
        files += [folder / f"{part.key}.csv", folder / f"{part.key}.md"]
        if part.key == "theorem":
            files += save_theorem(found, folder)
            write_text(folder / "theorem_curves.csv", _csv(_curves(found)))
            files.append(folder / "theorem_curves.csv")
        if part.key == "extensions":
            files += save_survival(found, setup.orders, folder)
    write_json(
        folder / "theory.json",
        {"setup": asdict(setup), "options": {k: v for k, v in own.items() if k != "folder"}, **_finite(written)},
        indent=1,
    )
    names = ", ".join(path.name for path in [*files, folder / "theory.json"])
    console.print(f"{folder}: {names}", markup=False, highlight=False, soft_wrap=True)


def _parts(setup: Setup, own: dict[str, Any], console: Console) -> Iterator[tuple[Part, Any]]:
    """Yields each part with what its figures are drawn from."""
    seeds = range(own["first_seed"], own["first_seed"] + own["seeds"])
    if {"theorem", "removal"} & set(own["parts"]):
        found = measure(setup, seeds, own["tolerance"], own["steps"])
    for part in PARTS:
        if part not in own["parts"]:
            continue
        with console.status(part):
            if part == "theorem":
                done: tuple[Part, Any] = theorem_part(found), found
            elif part == "removal":
                done = removal_part(found), None
            elif part == "extensions":
                rows = list(survival(setup, seeds, own["extension_steps"]))
                done = survival_part(rows, setup.orders), rows
            else:
                many = measure(setup, range(own["first_seed"], own["first_seed"] + own["draws"]), own["tolerance"])
                done = certificates_part(many, Levels(**own["levels"])), None
        yield done


def _curves(found: Any) -> list[dict[str, Any]]:
    return [
        {"pair": "-".join(pair.orders), "seed": seed, "step": step, "distance": pair.distance[step, index], "log_bound": bound[step, index],
         **{f"{order}_to_retrained": found.to_retrained[order][step, index] for order in found.starts}}
        for pair, bound in ((pair, pair.log_bound()) for pair in found.pairs)
        for index, seed in enumerate(found.seeds)
        for step in range(found.steps + 1)
    ]  # fmt: skip


def _csv(records: Sequence[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(records[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in record.items()} for record in map(_finite, records))
    return out.getvalue()


def _finite(value: Any) -> Any:
    """Turns NumPy's numbers into Python's, and what is no number into null."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value
