"""What is read out of a large source once and kept: its fingerprint, and which of its records are held out.

Both need every record, so that a file of 200,000 lines would be read for each command that only asks for a run's key or for a few examples.
"""

from __future__ import annotations

import json
from functools import partial

from unlearn_lightning.data.example_source import ExampleSource, Split
from unlearn_lightning.data.store_keys import text_key
from unlearn_lightning.data.token_store import kept_text


class KeptSource(ExampleSource):
    """An `ExampleSource` that reads a large file as seldom as it can."""

    def fingerprint(self, split: Split = "train") -> str:
        """As `ExampleSource.fingerprint`; that of a large source is kept."""
        key = text_key(self, split)
        return super().fingerprint(split) if key is None else kept_text(key, partial(super().fingerprint, split))

    def held_out_places(self, count: int) -> list[int]:
        """As `ExampleSource.held_out_places`; those of a large source are kept."""
        make = partial(super().held_out_places, count)
        key = text_key(self, f"places of {count}")
        return make() if key is None else list(json.loads(kept_text(key, lambda: json.dumps(make()))))
