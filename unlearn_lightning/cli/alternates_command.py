"""`unlearn alternates RUN --samples 5 --out FILE` as typed: its arguments, before torch is loaded.

unlearn alternates runs/tofu --data TofuPartStage --data.part forget05 --samples 5 --out alternates.jsonl
unlearn alternates -c configs/own_data.yaml --model.backbone.model MODEL --data.source forget.jsonl --out alternates.jsonl
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unlearn_lightning.cli import subcommand

# Worded after the paper's (Mekala et al. 2025, arXiv:2409.13474), which gives question and answer and asks for another version of it.
TEMPLATE = (
    "Question: {prompt}\nAnswer: {response}\nNow write another version of the answer, in which other plausible facts take the place of "
    "the answer's details."
)
OPENING = "Alternate Answer:"


class _Parser(argparse.ArgumentParser):
    """Leaves the run and the settings of `unlearn fit` to the trainer's own parser."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """The options of this verb, and the other words as `words`."""
        options, options.words = self.parse_known_args(args, namespace)
        return options


def parser() -> argparse.ArgumentParser:
    """Describes the arguments of `unlearn alternates`."""
    found = _Parser(
        prog="unlearn alternates",
        usage="unlearn alternates RUN --out FILE [options] [--data ...]\n       unlearn alternates -c CONFIG ... --out FILE [options]",
        description="Has the starting model of unlearning write alternate answers to the forget set's prompts, for AltPO and DPO. The "
        "model is a finished run's result, or that of a configuration, and so is the forget set; --data flags name another one.",
        allow_abbrev=False,
    )  # fmt: skip
    found.add_argument("--out", required=True, type=Path, metavar="FILE", help="the JSON-lines file to write; it must not exist")
    found.add_argument(
        "--samples", type=subcommand.count, default=5, metavar="K", help="alternates of each prompt (default: 5, the paper's)"
    )
    found.add_argument("--temperature", type=float, default=1.0, help="of the sampling (default: 1, the paper's)")
    found.add_argument(
        "--max_new_tokens", type=subcommand.count, default=200, metavar="N", help="longest alternate, tokens (default: 200, the paper's)"
    )
    found.add_argument("--seed", type=int, default=0, help="of the sampling (default: 0)")
    found.add_argument("--template", default=TEMPLATE, help="what the model is asked; '{prompt}' asks the forget set's prompt alone")
    found.add_argument("--opening", default=OPENING, help=f"how its answer begins, which is left out of the file (default: {OPENING!r})")
    found.add_argument(
        "--batch_size", type=subcommand.count, default=64, metavar="N", help="answers sampled at once; changes time and memory only"
    )
    return found


def main(arguments: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    return subcommand.run(parser(), arguments or ["--help"], _alternates)


def _alternates(options: argparse.Namespace) -> None:
    from unlearn_lightning.cli.alternates import Sampled, write_alternates

    sampled = Sampled(options.samples, options.temperature, options.max_new_tokens, options.seed, options.template, options.opening)
    write_alternates(options.words, sampled, options.out, options.batch_size)
