"""The `unlearn` command: sends each verb to its room, imported only when it is asked for.

Little is imported before `main` listens for signals, so that Ctrl-C and SIGTERM end a command in a line also while it starts.
"""

from __future__ import annotations

import os
import shlex
import sys
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

from unlearn_lightning import __version__
from unlearn_lightning.preemption import stoppable, was_asked


class OwnCallbacks:
    """Finds this package's `callbacks` before a folder of that name where one works, whose files join it (callbacks/__init__.py)."""

    @classmethod
    def install(cls) -> None:
        """Puts the finder before all others, once."""
        if cls not in sys.meta_path:
            sys.meta_path.insert(0, cls)

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Where `callbacks` lies; any other module is left to the other finders."""
        folder = Path(__file__).parents[1] / "callbacks"
        if name != folder.name:
            return None
        return spec_from_file_location(name, folder / "__init__.py", submodule_search_locations=[str(folder)])


HELP = f"""unlearn_lightning {__version__}: staged fine-tuning and unlearning of language models.

usage: unlearn VERB [arguments]        (each verb has its own --help)

  fit         train one stage, or unlearn one
    unlearn fit -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml
  validate    measure a run or a model, train nothing
    unlearn validate runs/tofu --trainer.callbacks+ my_metrics.ResponseLength
  test        the same under Lightning's test loop
  evaluate    benchmarks of the lm-evaluation-harness
    unlearn evaluate runs/forgotten --tasks gsm8k,mmlu,wmdp_bio
  study       train, unlearn and measure all the paths
    unlearn study configs/studies/demo.yaml
  status      how each run of a study is doing
    unlearn status runs/demo
  watch       the same, live, with what is measured
    unlearn watch runs/demo
  report      tables and a page from a study's records
    unlearn report runs/demo
  theory      the linear model's theorem, measured
    unlearn theory --seeds 20
  alternates  other answers to a forget set, for AltPO
    unlearn alternates runs/tofu --samples 5 --out alternates.jsonl
  export      a run's model for plain transformers
    unlearn export runs/forgotten
  memory      which GPU holds a training step
    unlearn memory configs/backbones/llama3.1-8b-nf4.yaml
  configs     the configurations that come along
    unlearn configs stages/tofu.yaml --copy mine.yaml
  new         a metric, objective or stage to fill in
    unlearn new callback ResponseLength
"""
ROOMS = {
    "evaluate": "unlearn_lightning.cli.evaluate_command:main",
    "study": "unlearn_lightning.study.command:study",
    "status": "unlearn_lightning.study.status:status",
    "watch": "unlearn_lightning.study.watch:watch",
    "report": "unlearn_lightning.report.command:report",
    "theory": "unlearn_lightning.theory.command:theory",
    "alternates": "unlearn_lightning.cli.alternates_command:main",
    "export": "unlearn_lightning.cli.export_command:main",
    "memory": "unlearn_lightning.study.memory_command:memory",
    "configs": "unlearn_lightning.cli.config_files:main",
    "new": "unlearn_lightning.cli.new:main",
}


def main(arguments: list[str] | None = None) -> int:
    """Runs one command and returns its exit status; a signal ends it at its next safe point (preemption.py)."""
    words = sys.argv[1:] if arguments is None else arguments
    return stoppable(lambda: _run(words), shlex.join(["unlearn", *words]))


def _run(arguments: list[str]) -> int:
    """Runs one command and returns its exit status; whatever is raised ends as one line (errors.py)."""
    from unlearn_lightning.cli.environment import refuse_unknown
    from unlearn_lightning.cli.errors import foreign_place, innermost, told
    from unlearn_lightning.loggers.wandb_end import command_in_wandb, end_in_wandb

    # Class paths also name files of this folder, as with `python -m`; last, so that none takes an installed module's place.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    OwnCallbacks.install()
    verb = arguments[0] if arguments else "--help"
    with command_in_wandb():
        try:
            refuse_unknown(os.environ)
            status = _dispatch(verb, arguments)
            end_in_wandb(failed=bool(status))
            return status
        except (Exception, SystemExit) as error:
            # A user's own code that ends the process would end it as if all was done.
            if isinstance(error, SystemExit) and (innermost(error) is not error or not foreign_place(error)):
                raise
            if was_asked():
                raise
            return told(error, f"unlearn {verb}", 2) if verb in ROOMS else told(error, "unlearn", 1)


def _dispatch(verb: str, arguments: list[str]) -> int:
    from unlearn_lightning.cli.environment import TRAINER_VERBS

    if verb in ("-h", "--help", "help"):
        print(HELP, end="")
    elif verb == "--version":
        print(__version__)
    elif verb in TRAINER_VERBS:
        if arguments[1:] in (["--help"], ["-h"]):
            return _help(verb)
        from unlearn_lightning.cli.setting_help import asked, setting_help

        if question := asked(arguments):
            print(setting_help(*question), end="")
            return 0
        return _trainer(arguments)
    elif verb in ROOMS:
        module, _, function = ROOMS[verb].partition(":")
        return int(getattr(import_module(module), function)(arguments[1:]))
    else:
        return _unknown(verb)
    return 0


def _help(verb: str) -> int:
    from unlearn_lightning.cli.help_text import show

    show(verb)
    return 0


def _trainer(arguments: list[str]) -> int:
    if arguments[0] == "validate":
        from unlearn_lightning.cli.validate_command import validate

        validate(arguments[1:])
    else:
        from unlearn_lightning.cli.lightning_cli import run

        run(arguments)
    return 0


def _unknown(verb: str) -> int:
    import difflib

    from unlearn_lightning.cli.environment import TRAINER_VERBS

    near = difflib.get_close_matches(verb, [*TRAINER_VERBS, *ROOMS], n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    print(f"unlearn: there is no verb {verb!r}.{hint} `unlearn --help` lists them.", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
