"""Planning where the Hub is out of reach: at once, and with keys that can never be executed.

with quick_hub():
    runs = plan(study, store, resolve, content=Unread())
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from huggingface_hub import constants as hub
from huggingface_hub.utils import get_session

from unlearn_lightning.runs.run_key import UNREAD
from unlearn_lightning.sources.readers import HubError

HUB_SECONDS = 3


@contextmanager
def quick_hub() -> Iterator[bool]:
    """Where the Hub does not answer, only what is cached is looked at, at once; yields whether it answers."""
    saved = hub.HF_HUB_OFFLINE
    reached = not saved and _hub_answers()
    try:
        _go_offline(saved or not reached)
        yield reached
    finally:
        _go_offline(saved)


def _go_offline(offline: bool) -> None:
    hub.HF_HUB_OFFLINE = offline
    # `datasets`, which takes 90 MB, copies the setting when it is first imported, by whatever reads such data.
    if "datasets" in sys.modules:
        sys.modules["datasets"].config.HF_HUB_OFFLINE = offline


def _hub_answers() -> bool:
    try:
        get_session().head(hub.ENDPOINT, timeout=HUB_SECONDS)
    except Exception:
        return False
    return True


class Unread:
    """Reads the contents that run keys cover, for a plan: data and models on the Hub that cannot be read count by name.

    `plan(..., content=Unread())` gives such runs, and those after them, keys that begin with `unread-`.

    Attributes:
        why: data set or model -> why it could not be read.
    """

    def __init__(self) -> None:
        self.why: dict[str, str] = {}
        self._known: dict[Any, str] = {}

    def __call__(self, read: Callable[..., str], *args: Any) -> str:
        """The content's fingerprint, `read(*args)`, or else a name for it."""
        key = (read, args)
        if key not in self._known:
            try:
                self._known[key] = read(*args)
            except HubError as error:
                self.why[error.name] = str(error)
                self._known[key] = UNREAD + repr(args)
        return self._known[key]
