"""`unlearn validate`: a finished run, or any model, is measured; and how far it lies from a given retrained model.

unlearn validate RUN --trainer.callbacks+ mine.Rouge            # into the run's own records
unlearn validate RUN --model.backbone.quantization nf4          # does what was unlearned come back?
unlearn validate -c configs/objectives/npo.yaml --model.backbone.model FOLDER --against runs/retrained
unlearn validate --model.backbone.model FOLDER --against runs/mine         # with that run's data and probes
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from unlearn_lightning.cli import quantised
from unlearn_lightning.cli.against import distances_of, run_of, with_retrained
from unlearn_lightning.cli.closing_table import print_closing
from unlearn_lightning.cli.lightning_cli import run
from unlearn_lightning.cli.measuring import is_first, measure, trained_config
from unlearn_lightning.cli.resolver import ConfigOnly
from unlearn_lightning.runs import neutral
from unlearn_lightning.runs.measured import probes_of

# Options of this verb alone, which are no settings of a run.
OPTIONS = ("--measure", "--against")
DISTANCE = ("--trainer.callbacks+", "PathDivergence")
NO_DATA = (
    "No data is named, so there is nothing to measure on. Give it with `--data ChatStage --data.source FILE.jsonl`, or with a "
    "configuration, such as `-c configs/own_data.yaml --data.source forget.jsonl`; or name a run folder: `unlearn validate RUN`, "
    "or `--against RUN` beside a model, which is then measured with that run's data and probes."
)


def validate(words: Sequence[str]) -> None:
    """Runs the command; `words` are those behind the verb.

    Raises:
        ValueError: an option has no value, or settings are given that are not the run's.
    """
    options, rest = taken(words)
    if rest and not rest[0].startswith("-"):
        _measure_run(Path(rest[0]), rest[1:], options)
    elif options["--measure"]:
        raise ValueError("--measure names probes of a finished run: `unlearn validate RUN --measure NAME`.")
    else:
        _measure_model(rest, options["--against"])


def taken(words: Sequence[str]) -> tuple[dict[str, list[str]], list[str]]:
    """The values of this verb's own options, and the other words.

    Raises:
        ValueError: an option has no value.
    """
    found: dict[str, list[str]] = {option: [] for option in OPTIONS}
    rest: list[str] = []
    waiting = iter(words)
    for word in waiting:
        option, equals, value = word.partition("=")
        if option not in OPTIONS:
            rest.append(word)
            continue
        given = value if equals else next(waiting, "")
        if not given or given.startswith("--"):
            raise ValueError(f"{option} needs a value: {'the name of a probe' if option == '--measure' else 'a run folder or a model'}.")
        found[option].append(given)
    if len(found["--against"]) > 1:
        raise ValueError("--against is given twice; a model is compared with one retrained model at a time.")
    return found, rest


def _measure_run(folder: Path, words: Sequence[str], options: Mapping[str, list[str]]) -> None:
    trained = trained_config(folder)
    kind, words = quantised.asked(words, trained)
    config = resolved_with(trained, words)
    if names := sorted(_different(trained, config)):
        raise ValueError(
            f"{', '.join(names)}: the run {folder} has another value, and its records would hold measurements of another model. "
            "Measure it as one of its own: `unlearn validate -c CONFIGURATION --model.backbone.model ...`."
        )
    if not probes_of(config):
        raise ValueError(f"{folder} has no probes. Name one to measure: `unlearn validate {folder} --trainer.callbacks+ CLASS`.")
    named = [name for given in options["--measure"] for name in given.split(",")] or None
    if kind:
        if options["--against"]:
            raise ValueError(f"{quantised.FLAG} and --against are two commands: measure the one, and then the other.")
        done = quantised.measure_quantised(folder, config, kind, named)
        if is_first():
            print(f"Measured with {kind} weights: {', '.join(done)}." if done else f"Measured already with {kind} weights.")
            quantised.print_recovery(folder)
        return
    again: list[str] = []
    for retrained in options["--against"]:
        if not distances_of(config):
            config = resolved_with(trained, [*words, *DISTANCE])
        config, again = with_retrained(config, retrained)
    done = measure(folder, config, named, again)
    left = [name for name in probes_of(config) if name not in done and (named is None or name in named)]
    if left and is_first():
        print(f"Measured already: {', '.join(left)}.")
    if done and is_first():
        print(f"Measured: {', '.join(done)}, at the run's start and end.")
    if is_first():
        print_closing(folder.absolute(), list(probes_of(config)), trained=False)


def _measure_model(words: Sequence[str], against: Sequence[str]) -> None:
    words = list(words)
    flags = {word.partition("=")[0] for word in words}
    likewise: dict[str, Any] | None = None
    has_file = any(word.startswith(("-c", "--co")) for word in words)
    only_asks = bool(flags & {"--help", "-h", *(() if against else ("--print_config",))})
    if not has_file and not only_asks:
        if not any(flag == "--data" or flag.startswith("--data.") for flag in flags):
            likewise = _like_run(flags, against)
        elif not flags & {"--model", "--model.class_path"}:
            words = ["--model", "StageFineTuning", *words]
    if not against:
        run(["validate", *words])
        return

    def resolved(more: Sequence[str] = ()) -> dict[str, Any]:
        return command_config([*words, *more]) if likewise is None else resolved_with(likewise, [*words, *more])

    config = resolved()
    config, _ = with_retrained(config if distances_of(config) else resolved(DISTANCE), against[0])
    run({"subcommand": "validate", "validate": {name: value for name, value in config.items() if name != "config"}})


def _like_run(flags: Set[str], against: Sequence[str]) -> dict[str, Any]:
    """The configuration of the run that a model is compared with, for a model in the place of the run's own.

    Raises:
        ValueError: there is no such run, or no model is named.
    """
    folder = run_of(Path(against[0])) if against else None
    if folder is None or not flags & {"--model.backbone.model", "--model.backbone.adapter"}:
        raise ValueError(NO_DATA)
    trained = trained_config(folder)
    settings = trained["model"]["init_args"]
    # The run's own beginning is none of the other model's.
    backbone = {**settings["backbone"], **dict.fromkeys(("scratch", "adapter", "revision", "tokenizer"))}
    rank_zero_info(f"Data and probes are those of {against[0]}.")
    model = {**trained["model"], "init_args": {**settings, "backbone": backbone}}
    return {name: value for name, value in {**trained, "model": model, "run_folder": None, "ckpt_path": None}.items() if name != "config"}


def command_config(words: Sequence[str]) -> dict[str, Any]:
    """The whole configuration that the words of a command say."""
    return run(["validate", *words], cli=ConfigOnly).resolved()


def resolved_with(config: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A run's configuration with every default of today, and what the words of the command change."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(yaml.safe_dump(dict(config), sort_keys=False))
        file.flush()
        found = command_config(["--config", file.name, *words])
    return found


def _different(trained: Mapping[str, Any], config: Mapping[str, Any]) -> set[str]:
    """The settings of a run that another configuration changes and that decide what its model is, by their names."""
    free = {
        *(f"trainer.{name}" for name in ("callbacks", *neutral.TRAINER, *neutral.TRAINER_TO_ROUNDING)),
        *(f"model.backbone.{name}" for name in neutral.BACKBONE_TO_ROUNDING),
        *(f"data.{name}" for name in (*neutral.DATA, *neutral.DATA_TO_ROUNDING)),
    }  # fmt: skip
    one, other = (_flat({part: given[part] for part in ("model", "data", "trainer")}) for given in (trained, config))
    changed = {name for name, value in one.items() if name in other and other[name] != value}
    return {name for name in changed if not any(name == begin or name.startswith(f"{begin}.") for begin in free)}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """The settings of a nested configuration by their names, such as model.backbone.dtype."""
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    parts = {(name if part == "init_args" else f"{name}.{part}".lstrip(".")): inner for part, inner in value.items()}
    return {found: one for part, inner in parts.items() for found, one in _flat(inner, part).items()}
