"""Packages of users: their classes get short names in configs as the built-in ones have them.

    [project.entry-points."unlearn_lightning.plugins"]        # in the pyproject.toml of any installed package
    my_stage = "my_unlearning.stage"

Importing a module is enough, because configs name classes that exist. docs/extend.md has a whole package.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

GROUP = "unlearn_lightning.plugins"


def import_plugins() -> None:
    """Imports every module of the entry point group; one that fails is named in a line on stderr, and the command goes on."""
    for plugin in entry_points(group=GROUP):
        try:
            plugin.load()
        except Exception as error:
            # Commands that do not use it must work; those that do then say which class is missing.
            owner = plugin.dist.name if plugin.dist else "unknown package"
            reason = (str(error).splitlines() or [""])[0]
            print(
                f"unlearn: plug-in {plugin.value!r} of {owner} was left out ({type(error).__name__}: {reason}). Repair or uninstall it.",
                file=sys.stderr,
            )
