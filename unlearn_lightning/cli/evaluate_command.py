"""`unlearn evaluate RUN --tasks gsm8k,mmlu` as typed: its arguments, before torch is loaded.

unlearn evaluate runs/forgotten --tasks gsm8k,mmlu,wmdp_bio
unlearn evaluate runs/demo --tasks mine --include_path tasks/ --limit 100
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from unlearn_lightning.cli import subcommand


def parser() -> argparse.ArgumentParser:
    """Describes the arguments of `unlearn evaluate`."""
    found = argparse.ArgumentParser(
        prog="unlearn evaluate",
        description="Measures a run's model by tasks of the lm-evaluation-harness, without exporting it, into the run's records.",
        allow_abbrev=False,
    )
    found.add_argument("place", metavar="RUN_OR_FOLDER", type=Path, help="a finished run folder, a study, or a folder of runs")
    found.add_argument("--tasks", required=True, help="names of tasks or groups, with commas between them, such as gsm8k,mmlu,wmdp_bio")
    found.add_argument("--start", action="store_true", help="measure the model that each run began with, too")
    found.add_argument("--kind", choices=["unlearn", "stage", "all"], default="unlearn", help="of a folder's runs (default: unlearn)")
    found.add_argument("--limit", type=subcommand.count, metavar="N", help="only the first N examples of each task (default: all)")
    found.add_argument("--num_fewshot", type=_whole, metavar="N", help="solved examples before each question (default: the task's own)")
    found.add_argument("--batch_size", type=subcommand.count, metavar="N", default=8, help="examples at once (default: 8)")
    found.add_argument("--apply_chat_template", action="store_true", help="ask by the model's chat template, as an instruct model expects")
    found.add_argument("--include_path", metavar="DIR", type=Path, help="a folder with tasks of your own, as YAML files")
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return subcommand.run(parser(), arguments or ["--help"], _evaluate)


def _whole(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"must be at least 0, got {value}")
    return value


def _evaluate(options: argparse.Namespace) -> None:
    from unlearn_lightning.cli.benchmarks import Setting, evaluate, runs_in

    setting = Setting(options.limit, options.num_fewshot, options.batch_size, options.apply_chat_template, options.include_path)
    names = list(dict.fromkeys(name.strip() for name in options.tasks.split(",") if name.strip()))
    if not names:
        raise ValueError("--tasks names no task. Name some, such as --tasks gsm8k,mmlu.")
    evaluate(runs_in(options.place, options.kind), names, setting, options.start)
