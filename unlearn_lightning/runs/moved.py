"""A run's config.yaml as it is meant where the run folder lies now: a copied or moved one is itself, and not the folder it was.

read_config(Path("copies/forgotten"))["run_folder"]     # ".../copies/forgotten", also where it was made as runs/forgotten

What a run names relative to the folder in which it was started, such as its data files, is found from elsewhere, too.
Paths below the former folder lead below the present one. So do those beside it, such as the runs it starts from in a store that was moved
as a whole, where they are there.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from unlearn_lightning.records.yaml_files import read_yaml

CONFIG = "config.yaml"
# In run.json: the working folder of the command, below which the relative paths of its settings lie.
STARTED_IN = "started_in"
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
    if (started := _started_in(folder)) is not None and started != Path.cwd():
        content = {name: _found_from(value, started) if name in PARTS else value for name, value in content.items()}
    return {**content, "run_folder": str(here)}


def _started_in(folder: Path) -> Path | None:
    with suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
        return Path(json.loads((folder / "run.json").read_text(encoding="utf-8"))[STARTED_IN])
    return None


def _found_from(value: Any, started: Path) -> Any:
    """Relative paths that lead nowhere from here, and somewhere from where the run was started, as absolute ones."""
    if isinstance(value, dict):
        return {name: _found_from(one, started) for name, one in value.items()}
    if isinstance(value, list):
        return [_found_from(one, started) for one in value]
    # A word without a dot or a slash is a name, such as `world`, whatever lies there.
    if not isinstance(value, str) or os.path.isabs(value) or not ("/" in value or "." in value) or "\n" in value or len(value) > 4096:
        return value
    with suppress(OSError, ValueError):
        return str(started / value) if not Path(value).exists() and (started / value).exists() else value
    return value


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
