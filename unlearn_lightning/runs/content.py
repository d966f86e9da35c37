"""What a model folder, an earlier run's result or a Hub model is: its content, never the place where it lies.

result_of(run_folder)                   # what run.json records: {"folder": "model", "files": {"config.json": {"sha256": ...}, ...}}
key_of_result(run_folder / "model")     # that run's key; None where the folder holds anything else than what the run recorded
hub_commit("meta-llama/Llama-3.2-1B")   # the commit that the Hub's `main` is now

Files are hashed again only where size or time differ from what was recorded.
"""

from __future__ import annotations

import functools
import hashlib
import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants
from huggingface_hub.file_download import repo_folder_name

from unlearn_lightning.records import read_run
from unlearn_lightning.sources.readers import HubError

# Where a run's result lies in its folder: an adapter, or all weights.
RESULTS = ("adapter", "model")
HUB_SECONDS = 10


def result_of(run_folder: Path) -> dict[str, Any] | None:
    """The result in a run folder: its folder's name, and SHA-256, size and time of each file; None where there is none."""
    folder = next((run_folder / name for name in RESULTS if (run_folder / name).is_dir()), None)
    if folder is None:
        return None
    facts = {name: (_sha256(path, *_stamp(path)), *_stamp(path)) for name, path in _files(folder).items()}
    return {"folder": folder.name, "files": {name: dict(zip(("sha256", "size", "mtime_ns"), f, strict=True)) for name, f in facts.items()}}


def changed_files(run_folder: Path) -> list[str]:
    """The files of a finished run's result that are not as run.json recorded them, or that it did not record."""
    recorded = read_run(run_folder).get("result")
    if recorded is None:
        return []
    there, known = _files(run_folder / recorded["folder"]), recorded["files"]
    return [name for name in sorted(there.keys() | known.keys()) if not _is_as_recorded(there.get(name), known.get(name))]


def refuse_changed(run_folder: Path) -> None:
    """Refuses the result of a finished run whose files are not as the run recorded them.

    Raises:
        ValueError: files were edited, replaced, added or deleted.
    """
    if changed := changed_files(run_folder):
        named = ", ".join(changed[:3]) + (" ..." if changed[3:] else "")
        raise ValueError(
            f"{run_folder} is finished, but its result changed since then ({named}). Delete the "
            "run folder to train it again, or put the changed model elsewhere and name it in backbone.model."
        )


def key_of_result(place: Path) -> str | None:
    """The key of the finished run whose result this folder is, with the content that the run recorded."""
    if not (place.parent / "run.json").is_file():
        return None
    run = read_run(place.parent)
    is_result = run["status"] == "finished" and (run.get("result") or {}).get("folder") == place.name
    return run["key"] if is_result and not changed_files(place.parent) else None


def content_of(place: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names; hidden files and Markdown say nothing about a model."""
    if place.is_file():
        return _sha256(place, *_stamp(place))
    found = [(name, _sha256(path, *_stamp(path))) for name, path in _files(place).items()]
    return hashlib.sha256(repr(found).encode()).hexdigest()


@functools.lru_cache(maxsize=64)
def hub_commit(name: str, revision: str | None = None) -> str:
    """The commit of a Hub model: what the Hub says now, or where it does not answer the commit in the local cache.

    Raises:
        HubError: neither knows the model.
    """
    if revision is not None and re.fullmatch("[0-9a-f]{40}", revision):
        return revision
    try:
        commit = HfApi().model_info(name, revision=revision, timeout=HUB_SECONDS).sha
        if commit is not None:
            return str(commit)
        why = "the Hub names no commit"
    except Exception as error:
        # The error may be of many kinds: no network, no such model, no access, or one of the HTTP client's own.
        why = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    cached = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type="model") / "refs" / (revision or "main")
    if not cached.is_file():
        raise HubError(name, why, "model")
    return cached.read_text(encoding="utf-8").strip()


def _files(folder: Path) -> dict[str, Path]:
    found = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if path.suffix != ".md" and not any(p.startswith(".") for p in Path(name).parts)}


def _is_as_recorded(path: Path | None, facts: dict[str, Any] | None) -> bool:
    if path is None or facts is None:
        return False
    stamp = _stamp(path)
    return stamp == (facts["size"], facts["mtime_ns"]) or (stamp[0] == facts["size"] and _sha256(path, *stamp) == facts["sha256"])


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=1024)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """Hashes a file once per process as long as its size and time stay: a study's runs share their base model, which may be large."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
