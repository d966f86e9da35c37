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

from unlearn_lightning.records import is_finished, read_run
from unlearn_lightning.records.digests import differing, digests, sha256, stamp
from unlearn_lightning.sources.readers import HubError

# Where a run's result lies in its folder: an adapter, or all weights.
RESULTS = ("adapter", "model")
# What else a run writes and somebody reads: patterns of names in its folder.
WRITTEN = ("config.yaml", "metrics.csv", "records/*/*.json")
HUB_SECONDS = 10


def result_of(run_folder: Path) -> dict[str, Any] | None:
    """The result in a run folder: its folder's name, and SHA-256, size and time of each file; None where there is none."""
    folder = next((run_folder / name for name in RESULTS if (run_folder / name).is_dir()), None)
    return None if folder is None else {"folder": folder.name, "files": digests(folder, _files(folder))}


def files_of(run_folder: Path) -> dict[str, dict[str, Any]]:
    """SHA-256, size and time of what a run wrote beside its result: configuration, metrics and records, by their names in its folder."""
    found = [path for pattern in WRITTEN for path in sorted(run_folder.glob(pattern)) if path.is_file()]
    return digests(run_folder, (path.relative_to(run_folder).as_posix() for path in found))


def changed_files(run_folder: Path, read: bool = False) -> list[str]:
    """The files of a finished run's result that are not as run.json recorded them, or that it did not record.

    Args:
        run_folder: of the run.
        read: hash all of them anew, also those whose size and time are as recorded.

    Raises:
        ValueError: run.json says that the run is finished, and not what it made.
    """
    run = read_run(run_folder)
    recorded = run.get("result")
    if (
        not run.get("key")
        or not isinstance(recorded, dict)
        or recorded.get("folder") not in RESULTS
        or not isinstance(recorded.get("files"), dict)
    ):
        raise ValueError(
            f"{run_folder / 'run.json'} does not say what the run made (`key`, `result`), so it cannot be told from something else. Delete "
            "the run folder to run it again, or put the model elsewhere and name it in backbone.model."
        )
    folder, known = run_folder / recorded["folder"], recorded["files"]
    return sorted({*differing(folder, known, read), *(_files(folder).keys() - known.keys())})


def changed_records(run_folder: Path, read: bool = False) -> list[str]:
    """What else a finished run wrote and is not as run.json recorded it; `read` as in `changed_files`."""
    return differing(run_folder, read_run(run_folder).get("files") or {}, read)


def refuse_changed(run_folder: Path, key: str | None = None) -> None:
    """Refuses the result of a finished run whose files are not as the run recorded them.

    Args:
        run_folder: of the run.
        key: what the run's key must be; null for any.

    Raises:
        ValueError: files were edited, replaced, added or deleted, or another run lies there.
    """
    if changed := changed_files(run_folder):
        named = ", ".join(changed[:3]) + (" ..." if changed[3:] else "")
        raise ValueError(
            f"{run_folder} is finished, but its result changed since then ({named}). Delete the "
            "run folder to train it again, or put the changed model elsewhere and name it in backbone.model."
        )
    if key is not None and (found := read_run(run_folder)["key"]) != key:
        raise ValueError(
            f"{run_folder} holds another run than its name says (key {str(found)[:12]}, not {key[:12]}): was a folder or its run.json "
            "copied there? Delete it to run this one again."
        )


def refuse_changed_place(place: str) -> None:
    """Refuses a folder that is the result of a finished run and holds something else than the run made; any other place is fine.

    Raises:
        ValueError: files were edited, replaced, added or deleted.
    """
    run_folder = Path(place).absolute().parent
    if Path(place).name in RESULTS and is_finished(run_folder) and (run_folder / Path(place).name).is_dir():
        refuse_changed(run_folder)


def key_of_result(place: Path) -> str | None:
    """The key of the finished run whose result this folder is, with the content that the run recorded."""
    if not (place.parent / "run.json").is_file():
        return None
    run = read_run(place.parent)
    if run["status"] != "finished" or place.name not in RESULTS or changed_files(place.parent):
        return None
    return str(run["key"]) if run["result"]["folder"] == place.name else None


def content_of(place: Path) -> str:
    """SHA-256 of a file, or of a folder's files with their names; hidden files and Markdown say nothing about a model."""
    if place.is_file():
        return sha256(place, *stamp(place))
    found = [(name, sha256(path, *stamp(path))) for name, path in _files(place).items()]
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
