"""Whether a place that a backbone names is a folder or on the Hub, asked before anything is loaded.

check_place("rnus/base/model", "backbone.model")     # FileNotFoundError: there is no folder ...; did you mean runs/base/model?

Libraries take any name that is no folder for the Hub's, and without a network try for minutes without naming it.
`builtin:tiny-llama` and `builtin:tiny-qwen2` are base models that come with this package, wherever it is installed.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError, RevisionNotFoundError

SECONDS = 10
SETTINGS = ("model", "tokenizer", "chat_template_from", "adapter")
# One of them is in every folder of a model, tokenizer or adapter.
FILES = ("config.json", "tokenizer_config.json", "tokenizer.json", "adapter_config.json")
BUILTIN = "builtin:"
BASES = Path(__file__).parent / "bases"


def located(place: str) -> str:
    """Where a place lies: `builtin:NAME` is a folder of this package, any other place stays as it is.

    Raises:
        FileNotFoundError: the package has no base model of that name.
    """
    if not place.startswith(BUILTIN):
        return place
    names = _folders(BASES)
    if (name := place.removeprefix(BUILTIN)) not in names:
        raise FileNotFoundError(f"There is no base model {place} in the package; it has {', '.join(BUILTIN + name for name in names)}.")
    return str(BASES / name)


def check_places(backbone: Mapping[str, Any]) -> None:
    """Looks for every place that a backbone names; see `check_place`.

    Raises:
        FileNotFoundError: one is neither a folder nor on the Hub, or a folder that holds nothing of a model.
    """
    for setting in SETTINGS:
        named = backbone.get(setting)
        for place in [named] if isinstance(named, str) else named or ():
            revision = backbone.get("revision") if setting == "model" else None
            check_place(place, f"backbone.{setting}", hub=setting != "adapter", revision=revision)
            if Path(place).is_dir() and not any((Path(place) / file).is_file() for file in FILES):
                raise FileNotFoundError(f"backbone.{setting}: the folder {place} holds no model: it has none of {', '.join(FILES)}.")


def check_place(place: str, setting: str, hub: bool = True, revision: str | None = None) -> None:
    """Refuses a place that is neither a folder nor known to the Hub or to its cache.

    Args:
        place: a folder, or the Hub's `name` or `owner/name`.
        setting: where it was named, for the message.
        hub: whether it may be on the Hub.
        revision: of the Hub's model.

    Raises:
        FileNotFoundError: there is none; the message names the place, and the nearest folder.
    """
    if Path(located(place)).exists():
        return
    near = _near(place)
    if not hub or is_path(place):
        hint = f" Did you mean {near}?" if near else " Where an earlier run makes it, that run must finish first."
        raise FileNotFoundError(f"{setting}: there is no {'model' if hub else 'adapter'} folder {place}.{hint}")
    if reason := _unknown_to_the_hub(place, revision):
        hint = f"Did you mean {near}?" if near else "Name a model folder, or the Hub's owner/name."
        raise FileNotFoundError(f"{setting}: there is no model folder {place}, and {reason}. {hint}")


def is_path(place: str) -> bool:
    """Whether the name can only be a folder's, or its first part is a folder here."""
    return place.count("/") > 1 or place.startswith((".", "/", "~")) or ("/" in place and Path(place).parts[0] in _folders(Path()))


def _near(place: str) -> Path | None:
    """The folder that exists and whose parts are named as the given ones, or almost so."""
    path = Path(place)
    found = Path(path.anchor)
    for part in path.relative_to(path.anchor).parts:
        names = [part] if (found / part).exists() else difflib.get_close_matches(part, _folders(found), n=1, cutoff=0.7)
        if not names:
            return None
        found /= names[0]
    return found


def _folders(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    except OSError:
        return []


def _unknown_to_the_hub(place: str, revision: str | None) -> str | None:
    """Why the Hub does not have it; None where it does or its cache here does, and where a licence is to be accepted first."""
    try:
        if any(isinstance(try_to_load_from_cache(place, file, revision=revision), str) for file in FILES):
            return None
        HfApi().model_info(place, revision=revision, timeout=SECONDS)
    except GatedRepoError:
        return None
    except RevisionNotFoundError:
        return f"the Hub's model of that name has no revision {revision}"
    except RepositoryNotFoundError:
        return "the Hub has no model of that name that can be read without, or with this, HF_TOKEN"
    except OfflineModeIsEnabled:
        return "it is not in the Hub's cache, while HF_HUB_OFFLINE is set"
    except HfHubHTTPError:
        # The Hub is busy or the model is gated; the download's own error says more.
        return None
    except ValueError as error:
        return f"it is no name on the Hub ({str(error).partition('.')[0]})"
    except Exception as error:
        return f"it is not in the Hub's cache, while {constants.ENDPOINT} cannot be reached ({error})"
    return None
