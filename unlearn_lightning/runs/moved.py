"""A run's config.yaml as it is meant where the run folder lies now: a copied or moved one is itself, and not the folder it was.

read_config(Path("copies/forgotten"))["run_folder"]     # ".../copies/forgotten", also where it was made as runs/forgotten

Paths below the former folder lead below the present one. So do those beside it, such as the runs it starts from in a store that was moved
as a whole, where they are there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from unlearn_lightning.records.yaml_files import read_yaml

CONFIG = "config.yaml"
PARTS = ("model", "data", "trainer")


def read_config(folder: Path) -> dict[str, Any]:
    """The whole configuration of a run folder, with its paths as they lie now.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged.
    """
    content = read_yaml(folder / CONFIG)
    if not isinstance(content, dict) or not all(isinstance(content.get(part), dict) for part in PARTS):
        raise ValueError(f"{folder / CONFIG} holds no whole configuration of a run ({', '.join(PARTS)}): was it cut or edited?")
    moved: dict[str, Any] = relocated(content, folder)
    return moved


def is_of_run(file: Path) -> bool:
    """Whether a configuration file is one that a run wrote into its folder."""
    return file.name == CONFIG and (file.parent / "run.json").is_file()


def relocated(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A run's configuration with the present folder in place of the one in which it was written."""
    here, former = folder.absolute(), content.get("run_folder")
    if isinstance(former, str) and os.path.isabs(former) and Path(former) != here:
        content = _moved(content, Path(former), here)
    return {**content, "run_folder": str(here)}


def _moved(value: Any, former: Path, here: Path) -> Any:
    if isinstance(value, dict):
        return {name: _moved(one, former, here) for name, one in value.items()}
    if isinstance(value, list):
        return [_moved(one, former, here) for one in value]
    if not isinstance(value, str) or not os.path.isabs(value):
        return value
    path = Path(value)
    if path.is_relative_to(former):
        return str(here / path.relative_to(former))
    if path.is_relative_to(former.parent) and (beside := here.parent / path.relative_to(former.parent)).exists():
        return str(beside)
    return value
