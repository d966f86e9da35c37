"""The report's sections, one a file. All classes that inherit `Section` in this folder and in plug-ins are found; no list names them."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module

from unlearn_lightning.cli.errors import line
from unlearn_lightning.cli.plugins import import_plugins
from unlearn_lightning.report.section import Material, Section


def sections(material: Material) -> list[Section]:
    """Every section there is, made from the material, in the order of their places; one of others that fails is left out and named."""
    for module in pkgutil.iter_modules(__path__, f"{__name__}."):
        import_module(module.name)
    import_plugins()
    kinds = sorted(_below(Section), key=lambda kind: (kind.place, kind.__name__))
    made = [section for kind in kinds for section in _whole(material, kind, lambda kind=kind: kind(material))]  # type: ignore[misc]
    material.drawn = {metric for section in made for metric in section.draws()}
    return [section for one in made for section in _whole(material, type(one), lambda one=one: _tried(one))]  # type: ignore[misc]


def _whole(material: Material, kind: type[Section], make: Callable[[], Section]) -> list[Section]:
    """The section, or none where it is somebody else's and fails: their mistake is to cost no report."""
    if kind.__module__.startswith(f"{__name__}."):
        return [make()]
    try:
        return [make()]
    except Exception as error:
        material.left_out.append(f"The section {kind.__module__}.{kind.__name__} is left out, as it failed: {line(error)}")
        return []


def _tried(section: Section) -> Section:
    """A section of somebody else's, after all was asked of it that the report asks; one of ours as it is."""
    if not type(section).__module__.startswith(f"{__name__}."):
        _ = section.shown, section.own_verdict, section.problems()
    return section


def _below(kind: type[Section]) -> Iterator[type[Section]]:
    for one in kind.__subclasses__():
        yield one
        yield from _below(one)
