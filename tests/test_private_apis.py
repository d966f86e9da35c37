"""Every private name of a library that this package uses, listed once: a release of that library may change it without a word.

A new use fails here, and so does an entry that is not used any more. Before you add one: look for a public way, put the use behind one
small function, and say there why it is needed and in which version it was read.
"""

import ast
import importlib
import inspect
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = ("unlearn_lightning", "callbacks")
FOLDERS = (*OURS, "scripts")

USED = {
    # jsonargparse
    "unlearn_lightning/cli/parser_internals.py": {
        "_actions", "_formatters", "_inner_parser", "_parameter_resolvers", "_subcommands_action", "_typehints", "_util",
    },
    # Lightning
    "unlearn_lightning/cli/trainer_parts.py": {"_SignalConnector", "_signal_connector"},
    "unlearn_lightning/cli/unlearn_cli.py": {"_prepare_subcommand_kwargs", "_run_subcommand", "_set_seed"},
    "unlearn_lightning/cli/measuring.py": {"_run_subcommand", "_set_seed", "epoch_loop", "optim_progress"},
    "unlearn_lightning/cli/resolver.py": {"_run_subcommand", "_set_seed"},
    "unlearn_lightning/data/stage_data.py": {"batch_progress", "epoch_loop"},
    "unlearn_lightning/loggers/mlflow_logger.py": {
        "_convert_params", "_experiment_name", "_flatten_dict", "_initialized", "_mlflow_client", "_prefix", "_run_id",
    },
    "unlearn_lightning/loggers/wandb_logger.py": {"_wandb_init"},
    "unlearn_lightning/runs/metrics_file.py": {"_experiment"},
    "unlearn_lightning/runs/resume.py": {"epoch_loop.batch_progress"},
    "unlearn_lightning/models/fsdp2_strategy.py": {"_data_parallel_size"},
    # transformers
    "unlearn_lightning/inference/attention.py": {"_attn_implementation"},
    # torch
    "unlearn_lightning/inference/prefix_sharing.py": {"_compiled_call_impl"},
    "unlearn_lightning/models/sharding.py": {"_foreach_norm"},
    "unlearn_lightning/study/fake_network.py": {"_python_dispatch", "_subclasses"},
}  # fmt: skip
# Public by their names, and yet parts of the inside of Lightning's loops and of its checkpoints.
INSIDES = {"batch_progress", "optim_progress", "epoch_loop", "epoch_loop.batch_progress", "automatic_optimization.optim_progress"}
BY_NAME = {"getattr", "setattr", "hasattr", "delattr"}


def is_private(name):
    return name.startswith("_") and name.strip("_") != "" and not (name.startswith("__") and name.endswith("__"))


def own(module):
    return module.split(".")[0] in (*OURS, *(entry.name for entry in (ROOT / "scripts").iterdir()))


@cache
def sources():
    """Each file's tree, by its path from the root."""
    files = [file for folder in FOLDERS for file in sorted((ROOT / folder).rglob("*.py"))]
    return {str(file.relative_to(ROOT)): ast.parse(file.read_text()) for file in files}


@cache
def defined():
    """The private names that the package itself defines: its functions, its classes' members, its modules' constants."""
    found = set()
    for tree in sources().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                found.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                found.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_self(node.value):
                found.add(node.attr)
    return found


def is_self(node):
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def is_super(node):
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def private_names(tree):
    """The private names of others in a file, wherever they are imported, looked up, or named in a string that is looked up."""
    names = defaultdict(list)
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not own(node.module or ""):
            for name in (*(node.module or "").split("."), *(alias.name for alias in node.names)):
                names[name].append(node)
                imports.add(name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                for name in () if own(alias.name) else alias.name.split("."):
                    names[name].append(node)
                    imports.add(name)
        elif isinstance(node, ast.Attribute) and not is_self(node.value):
            names[node.attr].append(node)
            if is_super(node.value):
                imports.add(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in BY_NAME:
            for given in node.args:
                if isinstance(given, ast.Constant) and isinstance(given.value, str):
                    names[given.value].append(node)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in INSIDES:
            names[node.value].append(node)
    return {name for name in names if name in INSIDES or (is_private(name) and (name in imports or name not in defined()))}


def inherited(cls):
    """The private names that a class has from a library: members of the bases there, and what these give to `self`."""
    found = set()
    for base in cls.__mro__[1:]:
        if not own(base.__module__) and base.__module__ not in sys.stdlib_module_names:
            found |= {name for name in vars(base) if is_private(name)} | given_to_self(base)
    return {name for name in found if is_private(name) and not name.startswith("_abc_")}


@cache
def given_to_self(base):
    try:
        lines = inspect.getsource(sys.modules[base.__module__])
    except (OSError, TypeError):
        return set()
    for node in ast.walk(ast.parse(lines)):
        if isinstance(node, ast.ClassDef) and node.name == base.__name__:
            return {
                inner.attr
                for inner in ast.walk(node)
                if isinstance(inner, ast.Attribute) and isinstance(inner.ctx, ast.Store) and is_self(inner.value)
            }
    return set()


def inherited_in(path, tree):
    """The libraries' private names that the classes in a file call on `self`, or define and so put their own in the place of."""
    found = set()
    nodes = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.bases]
    module = importlib.import_module(path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")) if nodes else None
    for node in nodes:
        theirs = inherited(getattr(module, node.name))
        for inner in ast.walk(node):
            if isinstance(inner, ast.FunctionDef) and inner.name in theirs:
                found.add(inner.name)
            elif isinstance(inner, ast.Attribute) and inner.attr in theirs and (is_self(inner.value) or is_super(inner.value)):
                found.add(inner.attr)
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_private_name_that_is_used_is_listed(folder):
    used = {}
    for path, tree in sources().items():
        if path.split("/")[0] == folder:
            names = private_names(tree) | (set() if folder == "scripts" or "/templates/" in path else inherited_in(path, tree))
            used |= {path: names} if names else {}
    assert used == {path: names for path, names in USED.items() if path.split("/")[0] == folder}


@pytest.mark.parametrize(
    ("code", "names"),
    [
        ("from torch._inductor import config", {"_inductor"}),
        ("from lightning.fabric.utilities.logger import _add_prefix", {"_add_prefix"}),
        ("import peft.tuners._buffer_dict as b", {"_buffer_dict"}),
        ("import wandb\nwandb.run._settings_of_it", {"_settings_of_it"}),
        ("getattr(trainer, '_fault')", {"_fault"}),
        ("class A(B):\n    def fit(self): return super()._set_seed()", {"_set_seed"}),
        ("trainer.fit_loop.epoch_loop", {"epoch_loop"}),
        ("checkpoint['loops']['fit_loop']['epoch_loop.batch_progress']", {"epoch_loop.batch_progress"}),
        ("from callbacks.probe import _own\nself._own\nmodule.__dict__\n_ = 1", set()),
    ],
)
def test_a_private_name_is_found(code, names):
    assert private_names(ast.parse(code)) == names
