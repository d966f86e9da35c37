"""A parser whose error is short: the nearest right name for a mistyped class or key, and no page of usage.

$ unlearn fit --data TofuStge
unlearn: there is no class 'TofuStge'. Did you mean 'TofuStage'?
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.cli import LightningArgumentParser
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from callbacks import Probe
from unlearn_lightning.cli.arguments import spelled
from unlearn_lightning.cli.errors import raised_in, short
from unlearn_lightning.cli.parameters import parameters
from unlearn_lightning.cli.parser_internals import is_inner
from unlearn_lightning.data import StageData
from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.modules import CausalLMModule, RetainTerm

NAMED_CLASSES = (CausalLMModule, StageData, Probe, Optimizer, LRScheduler)
SETTINGS = (Backbone, Lora, Scratch, RetainTerm)
COMMAND_KEYS = {"model", "data", "trainer", "run_folder", "seed_everything", "checkpoint_every_n_steps", "ckpt_path"}
# jsonargparse puts a nested parser's message into the outer one's.
EXPLAINED = re.compile(r"there is no (key|class) '.*|backbone\.adapter is set but .*|A backbone needs .*")
GIVEN_CLASS = re.compile(r"Problem with given class_path '(?:[\w.]+\.)?(\w+)'")
# A value that no type takes, whatever else was tried: other classes of a union have no such setting, and no class has its name.
WRONG_VALUE = re.compile(r"Expected an? (?:<class '(?:int|float|bool)'>|typing\.Literal|<class 'dict'>)")
NO_CLASS = re.compile(
    r"Expected a <class 'str'>\s+- Expected a dot import path string: (\S+)\s+Given value type: \S+ \S+NestedArg'>\s+"
    r"Given value: NestedArg\(key='([^']+)'"
)
UNNAMED = "the class that is given"
WRONG_CLASS = re.compile(r"Expected a dot import path string: (\S+)")
WRONG_KEY = re.compile(r"[Oo]ption '([\w.]+)' is not accepted|does not accept option '([\w.]+)'|[Uu]nrecognized arguments: --([\w.]+)")


class Parser(LightningArgumentParser):
    """This is the parser of LightningCLI, and its errors are one line."""

    def parse_args(self, args: Any = None, *rest: Any, **more: Any) -> Any:
        """Parses; a class's own parser gets a nested value as Python spells it, and reads it as JSON."""
        if args is not None and is_inner(self):
            args = [spelled(word) for word in args]
        return super().parse_args(args, *rest, **more)

    def error(self, message: str, ex: Exception | None = None) -> Any:
        """Ends the command with one readable line; from Python it raises."""
        told = explain(str(message))
        if is_inner(self):
            return super().error(told, ex)
        told = short(told)
        if not self.exit_on_error:
            return super().error(told, ex)
        print(f"unlearn: {told}{raised_in(ex)}", file=sys.stderr)
        sys.exit(2)


def explain(message: str) -> str:
    """Names the nearest right name where a class or key is mistyped; other messages stay as they are."""
    if WRONG_VALUE.search(message):
        return message
    if found := NO_CLASS.search(message):
        return f"there is no key {found[2]!r} here, because {found[1]} is no class with settings."
    if found := EXPLAINED.search(message):
        owner = GIVEN_CLASS.search(message)
        return found.group().replace(UNNAMED, owner.group(1)) if owner else found.group()
    if found := WRONG_KEY.search(message):
        known = key_names()
        path = next(group for group in found.groups() if group)
        first = path.partition(".init_args.")[0]
        if first != path and first in known:  # a class within one that has no such setting, such as an objective without an optimizer
            return f"there is no key {first!r} in {UNNAMED}, so that {path!r} cannot be set."
        wrong = next((part for part in path.split(".") if part not in known), None)
        if wrong is None:  # a setting of another class
            return f"there is no key {path!r} in {UNNAMED}."
        return f"there is no key {wrong!r}.{_suggestion(wrong, known)}"
    if (found := WRONG_CLASS.search(message)) and found.group(1) not in ("None", "null"):
        return f"there is no class {found.group(1)!r}.{_suggestion(found.group(1), class_names())}"
    return message


def _suggestion(wrong: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(wrong, sorted(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def class_names() -> set[str]:
    """Returns the short names of every class that a configuration may name."""
    return {c.__name__ for base in NAMED_CLASSES for c in _subclasses(base)}


def key_names() -> set[str]:
    """Returns the names of every setting of those classes, of the backbone, of the trainer and of the command."""
    owners = [pl.Trainer, *(c for base in NAMED_CLASSES for c in _subclasses(base))]
    names = {name for owner in owners for name in parameters(owner)}
    return names | {f.name for settings in SETTINGS for f in dataclasses.fields(settings)} | COMMAND_KEYS | {"init_args", "class_path"}


def _subclasses(base: type) -> list[type]:
    children: list[type] = base.__subclasses__()
    return [c for child in children for c in (child, *_subclasses(child))]
