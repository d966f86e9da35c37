"""Help for a setting that is a class within a class, such as `unlearn fit --model.retain.help`, which jsonargparse refuses.

print(setting_help("model", ["retain", "data"], "TofuStage"))        # the settings of TofuStage, each as --model.retain.data....

Where no class is given it is the setting's usual one, or else the one that all others extend, whose names are listed.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import Any, get_args, get_origin

from unlearn_lightning.cli.arguments import spelled

FLAG = re.compile(r"--(model|data|trainer)((?:\.\w+)+)\+?\.help(?:=(.*))?")


def asked(words: Sequence[str]) -> tuple[str, list[str], str | None] | None:
    """The part, the settings below it and the class that a command asks about; None where it asks for no such help.

    A class that is named for a setting directly below the trainer (`--trainer.callbacks.help CLASS`) is jsonargparse's own to show.
    """
    for place, word in enumerate(words):
        if found := FLAG.fullmatch(spelled(word)):
            path = [name for name in found[2].split(".") if name and name != "init_args"]
            following = [one for one in words[place + 1 : place + 2] if not one.startswith("-")]
            name = found[3] or next(iter(following), None)
            if path and (found[1] != "trainer" or len(path) > 1 or name is None):
                return found[1], path, name
    return None


def setting_help(part: str, path: Sequence[str], name: str | None) -> str:
    """The settings of a nested class as text.

    Args:
        part: model, data or trainer.
        path: the settings that lead to the class, outermost first.
        name: of a class to be shown in place of the usual one; null for that.

    Raises:
        ValueError: there is no such setting, it takes no class, or there is no such class.
    """
    import lightning.pytorch as pl
    from lightning.pytorch.cli import LightningArgumentParser

    import unlearn_lightning.cli.lightning_cli  # noqa: F401  Every class that may be named is imported there.
    from unlearn_lightning.cli.parser_internals import signature_parameters
    from unlearn_lightning.data import StageData
    from unlearn_lightning.modules import CausalLMModule

    owner: Any = {"model": CausalLMModule, "data": StageData, "trainer": pl.Trainer}[part]
    arguments, bases = 0, [owner]
    for setting in path:
        holder = next((one for base in (owner, *bases) for one in (base, *_below(base)) if setting in _names(one)), None)
        if holder is None:
            raise ValueError(f"there is no setting {setting!r} in {owner.__name__}, so --{part}.{'.'.join(path)}.help has nothing to show.")
        parameter = next(one for one in signature_parameters(holder) if one.name == setting)
        owner, bases, arguments = _class_of(parameter)
        if owner is None and setting != path[-1]:
            raise ValueError(f"{setting!r} of {holder.__name__} is no class with settings: `unlearn fit --{part}.help` shows it.")
        if owner is None:
            return _of_one(holder, ".".join([part, *path[:-1]]), setting)
    known = {one.__name__: one for base in bases for one in (base, *_below(base)) if not one.__name__.startswith("_")}
    if name is not None:
        if (short := name.rpartition(".")[2]) not in known:
            raise ValueError(f"there is no class {name!r} for {path[-1]!r}; there are {', '.join(sorted(known))}.")
        owner = known[short]
    prefix = ".".join([part, *path])
    parser = LightningArgumentParser(prog="unlearn fit", description=f"{owner.__name__}, as --{prefix}", usage="%(prog)s ...")
    # What the trainer itself passes, such as the weights to an optimizer, is nobody's setting.
    skip = {one.name for one in signature_parameters(owner)[:arguments]}
    parser.add_class_arguments(owner, prefix, skip=skip, fail_untyped=False)
    others = sorted(known.keys() - {base.__name__ for base in bases})
    listed = f"\nClasses for --{prefix}: {', '.join(others)}\n`--{prefix}.help CLASS` shows the settings of one.\n" if others else ""
    return str(parser.format_help()) + listed


def _of_one(holder: Any, prefix: str, setting: str) -> str:
    """The help of one setting that takes no class."""
    from lightning.pytorch.cli import LightningArgumentParser

    from unlearn_lightning.cli.parameters import parameters

    parser = LightningArgumentParser(prog="unlearn fit", description=f"{setting} of {holder.__name__}", usage="%(prog)s ...")
    parser.add_class_arguments(holder, prefix, skip={name for name in parameters(holder) if name != setting}, fail_untyped=False)
    return str(parser.format_help())


def _names(owner: Any) -> set[str]:
    from unlearn_lightning.cli.parameters import parameters

    return set(parameters(owner))


def _below(owner: type) -> list[type]:
    """Every class that extends another one, each before those that extend it."""
    children: list[type] = owner.__subclasses__()
    return [found for child in children for found in (child, *_below(child))]


def _class_of(parameter: Any) -> tuple[Any, list[Any], int]:
    """The class that a setting has unless another is named, the classes that it takes, and how many arguments a factory's caller passes."""
    from unlearn_lightning.cli.parser_internals import help_types

    types = help_types(parameter.annotation)
    if not types:
        return None, [], 0
    callables = [one for one in (parameter.annotation, *get_args(parameter.annotation)) if "Callable" in str(get_origin(one))]
    passed = get_args(callables[0])[0] if callables else []
    count = len(passed) if isinstance(passed, (list, tuple)) else 1
    usual = parameter.default if inspect.isclass(parameter.default) and issubclass(parameter.default, tuple(types)) else types[0]
    return usual, types, count
