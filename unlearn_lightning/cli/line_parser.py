"""A parser with one-line errors, without torch: the nearest right name for a mistyped key, and no page of usage.

$ unlearn study configs/studies/demo.yaml --sedes '[1, 2]'
unlearn study: there is no key 'sedes'. Did you mean 'seeds'?
"""

from __future__ import annotations

import difflib
import re
import sys
from typing import Any

import jsonargparse

from unlearn_lightning.cli.arguments import spelled
from unlearn_lightning.cli.errors import raised_in, short
from unlearn_lightning.cli.parser_internals import is_inner, options

WRONG_KEY = re.compile(r"[Oo]ption '([\w.-]+)' is not accepted|[Uu]nrecognized arguments: --([\w.-]+)")


class LineParser(jsonargparse.ArgumentParser):
    """This is jsonargparse's parser for `study`, `memory` and `theory`, and its errors are one line."""

    def parse_args(self, args: Any = None, *rest: Any, **more: Any) -> Any:
        """Parses; a class's own parser gets a nested value as Python spells it, and reads it as JSON."""
        return super().parse_args(args if args is None else [spelled(word) for word in args], *rest, **more)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Ends the command with one readable line."""
        if is_inner(self):
            return super().error(self._short(str(message)), ex)
        print(f"{self.prog}: {' '.join(short(self._short(str(message))).split())}{raised_in(ex)}", file=sys.stderr)
        sys.exit(2)

    def _short(self, message: str) -> str:
        found = WRONG_KEY.search(message)
        if not found:
            return message
        wrong = next(group for group in found.groups() if group)
        known = {option.removeprefix("--").replace("-", "_") for option in options(self)}
        if (first := wrong.partition(".")[0]) not in {name.partition(".")[0] for name in known}:
            wrong = first
        near = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.6)
        return f"there is no key {wrong!r}.{f' Did you mean {near[0]!r}?' if near else ''}"
