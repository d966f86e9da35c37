"""What the command line needs of jsonargparse and has no public name there, each thing behind one function. Read in jsonargparse 4.53.

Loads no torch, as the commands that need none parse their arguments with it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jsonargparse._typehints as typehints
from jsonargparse._actions import filter_non_parsing_actions
from jsonargparse._formatters import get_env_var
from jsonargparse._parameter_resolvers import get_signature_parameters
from jsonargparse._util import NestedArg, import_object


def is_inner(parser: Any) -> bool:
    """Says whether this is the parser of a class's settings, and not of the command: only the command's errors may end the process.

    jsonargparse marks the parsers that it makes for classes, and tells no method of theirs.
    """
    return bool(getattr(parser, "_inner_parser", False))


def options(parser: Any) -> set[str]:
    """Returns the parser's flags, such as `--seeds`, to suggest one for a mistyped one. argparse lists its actions under no public name."""
    return {option for action in parser._actions for option in action.option_strings}


def variables(parser: Any) -> set[str]:
    """The environment variables that set a setting of the command or of one of its subcommands.

    jsonargparse reads them and ignores any other, so that a mistyped one can only be found by comparison; it has no list to ask for.
    """
    subcommands = parser._subcommands_action.choices.values() if parser._subcommands_action else ()
    return {get_env_var(one, action) for one in (parser, *subcommands) for action in filter_non_parsing_actions(one._actions)}


@contextmanager
def on_class_change(act: Callable[[Any, Any, Any], None]) -> Iterator[None]:
    """Calls `act(action, before, after)` in this context instead of jsonargparse's own rule for the settings of a class that is replaced.

    The rule is a function of a private module and no setting of the parser.
    """
    saved = typehints.discard_init_args_on_class_path_change
    typehints.discard_init_args_on_class_path_change = act
    try:
        yield
    finally:
        typehints.discard_init_args_on_class_path_change = saved


def class_at(path: str) -> Any:
    """Returns the class or function at an import path, found as jsonargparse finds it, so that both mean the same one."""
    return import_object(path)


def nested_key(settings: Any) -> str | None:
    """Returns the key of a class's setting that a flag alone gives, which jsonargparse hands over before its value; null for others."""
    return settings.key if isinstance(settings, NestedArg) else None


def signature_parameters(owner: Any) -> list[Any]:
    """Lists the parameters of a class's constructor or of a function, with those behind **kwargs, where `inspect.signature` ends."""
    return list(get_signature_parameters(owner, "__init__" if isinstance(owner, type) else None))


def help_types(annotation: Any) -> list[Any]:
    """The classes with settings of their own that a type takes, in a list, a union or as what a factory makes; none for numbers."""
    return list(typehints.get_help_types(annotation) or ())
