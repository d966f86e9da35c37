"""One run of a study's tree. Without torch, so that launchers and their help start at once."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlearn_lightning.study.study_config import Settings


@dataclass(eq=False)
class Run:
    """One node of the tree.

    Attributes:
        name: readable, such as seed1/p4/npo.
        kind: stage, unlearn, request where a part of the forget set is unlearned after others, or relearn where a model is fine-tuned a
            little to see how soon what it has unlearned is back.
        key, folder: what identifies it, and where it lies.
        config: its whole `unlearn fit` configuration.
        parents: the runs it starts from.
        tags: seed, path, p, path_name, objective, retrained; docs/runs.md lists them.
        compare: the runs its divergence probe compares with, by name.
        quantised: the kinds of weights on which its result is measured again.
        inputs: a hash of each part that decides its result, so that a changed key can be explained.
    """

    name: str
    kind: str
    key: str
    folder: Path
    config: Settings
    parents: list[Run] = field(default_factory=list)
    tags: dict[str, Any] = field(default_factory=dict)
    compare: dict[str, Run] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    quantised: tuple[str, ...] = ()

    def ancestors(self) -> list[Run]:
        """Every run that this one starts from, directly or not."""
        return [found for parent in self.parents for found in (parent, *parent.ancestors())]

    def entry(self, study_folder: Path) -> dict[str, Any]:
        """The run's line in study.json."""
        return {
            "key": self.key, "folder": _relative(self.folder, study_folder), "kind": self.kind, "name": self.name,
            "parents": [p.key for p in self.parents], "tags": self.tags, "inputs": self.inputs,
            **({"quantised": list(self.quantised)} if self.quantised else {}),
        }  # fmt: skip


def with_ancestors(runs: Sequence[Run], wanted: Collection[Run]) -> list[Run]:
    """Of a study's runs, in their order: the wanted ones and all that these start from."""
    found = {one for run in wanted for one in (run, *run.ancestors())}
    return [run for run in runs if run in found]


def _relative(path: Path, start: Path) -> str:
    """The path as it is reached from a folder. Dots lead up from where a folder really is, so a link between them asks for real places."""
    named = os.path.relpath(path, start.absolute())
    real = os.path.realpath(start)
    if os.path.realpath(os.path.join(real, named)) == os.path.realpath(path):
        return named
    return os.path.relpath(os.path.realpath(path), real)
