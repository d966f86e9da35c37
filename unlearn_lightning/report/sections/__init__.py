"""The report's sections, one a file. All classes that inherit `Section` in this folder and in plug-ins are found; no list names them."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module

from unlearn_lightning.cli.plugins import import_plugins
from unlearn_lightning.report.section import Material, Section


def sections(material: Material) -> list[Section]:
    """Every section there is, made from the material, in the order of their places."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    import_plugins()
    found = [kind(material) for kind in sorted(_below(Section), key=lambda kind: (kind.place, kind.__name__))]
    material.drawn = {metric for section in found for metric in section.draws()}
    return found


def _below(kind: type[Section]) -> Iterator[type[Section]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
