"""Relearning: a little more fine-tuning behind each unlearned model and behind the retrained ones, to see how soon it is all back.

relearning:                                                         # in a study's file; each name is a fine-tuning of its own
  forget: {examples: 16, steps: 24, metric: forget/label_log_lik, tolerance: 0.1}
  benign: {stage: tofu, steps: 24, metric: forget/label_log_lik, tolerance: 0.1}
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from unlearn_lightning.records.texts import check_name

RELEARN = "relearn"
"""The kind of such a run in study.json."""
# Of a rate that falls towards the end of the run, the number of steps until all is back would depend on how many steps there may be.
CONSTANT = {"class_path": "WarmupStableDecay", "init_args": {"warmup": 0.0, "decay": 0.0}}


@dataclass(frozen=True)
class Relearning:
    """One fine-tuning that every unlearned model and every retrained model goes through, and what says that it is all back.

    Args:
        name: of it, in the study.
        stage: whose data is trained on; null for the data that was unlearned. Another stage's makes it benign relearning.
        examples: only the first so many of its training examples; null for all.
        steps: optimizer steps, after which what has not come back counts as censored.
        metric: what is measured at each step, by its probe in the study and its own name; it has to grow with what is remembered.
        tolerance: in the metric's unit. Back is a model whose metric is at most so far below its value before unlearning.
        every_n_steps: how often that is measured; the steps to relearn are as coarse.
        probes: names of the study's probes that measure as well, at the start and at the end.
        settings: of the fine-tuning (`model`, `data`, `trainer`), above those of the study's fine-tuning and of the stage.
    """

    name: str
    stage: str | None = None
    examples: int | None = None
    steps: int = 16
    metric: str = "forget/label_log_lik"
    tolerance: float = 0.1
    every_n_steps: int = 1
    probes: tuple[str, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, "The name of a relearning")
        for what in ("examples", "steps", "every_n_steps"):
            value = getattr(self, what)
            if (value is not None or what != "examples") and (not isinstance(value, int) or value < 1):
                raise ValueError(f"relearning.{self.name}.{what} is a whole number from 1, got {value!r}.")
        if isinstance(self.tolerance, bool) or not isinstance(self.tolerance, int | float) or not 0 <= self.tolerance < float("inf"):
            raise ValueError(f"relearning.{self.name}.tolerance is a number from 0, in the metric's unit; got {self.tolerance!r}.")
        probe, _, quantity = str(self.metric).partition("/")
        if not probe or not quantity:
            raise ValueError(f"relearning.{self.name}.metric is PROBE/QUANTITY, such as forget/label_log_lik; got {self.metric!r}.")
        from unlearn_lightning.records.measured import since_start  # This import loads NumPy, which `--help` need not wait for.

        if since_start(probe, self.metric):
            raise ValueError(
                f"relearning.{self.name}.metric is {self.metric}, the change since a run's own start, which says nothing of the model "
                "before unlearning: name the quantity itself, such as forget/label_log_lik."
            )

    @property
    def probe(self) -> str:
        """The name of the probe that measures the metric."""
        return self.metric.partition("/")[0]

    def check(self, stages: Collection[str], probes: Collection[str]) -> None:
        """Refuses names that the study does not have.

        Raises:
            ValueError: the stage or a probe is none of the study's.
        """
        if self.stage is not None and self.stage not in stages:
            raise ValueError(f"relearning.{self.name} names the stage {self.stage!r}, but `stages` has {sorted(stages)}.")
        if unknown := sorted({self.probe, *self.probes} - set(probes)):
            raise ValueError(
                f"relearning.{self.name} is measured by the probes {unknown}, but `probes` has {sorted(probes)}: name the metric's probe "
                "as it is named there."
            )

    def fine_tuning(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The settings of the fine-tuning above those of its stage: steps, examples and a constant rate; then what the study states."""
        limited = {} if self.examples is None else {"data": {"init_args": {"train_examples": self.examples}}}
        usual = {"model": {"init_args": {"lr_scheduler": CONSTANT}}, "trainer": {"max_epochs": -1, "max_steps": self.steps}}
        return {**usual, **limited}, self.settings

    def entry(self) -> dict[str, Any]:
        """What study.json says of it."""
        return {"metric": self.metric, "tolerance": self.tolerance, "steps": self.steps, "stage": self.stage, "examples": self.examples}


def read_relearning(name: str, given: Any) -> Relearning:
    """A relearning from its entry in a study's file.

    Args:
        name: of the entry.
        given: its settings.

    Raises:
        ValueError: a setting is unknown or has no meaning.
    """
    if not isinstance(given, dict):
        raise ValueError(f"relearning.{name} is a mapping such as {{examples: 16, steps: 24}}, got {given!r}.")
    own = {key: given[key] for key in ("model", "data", "trainer") if key in given}
    known = Relearning.__dataclass_fields__.keys() - {"name", "settings"}
    if unknown := sorted(given.keys() - own.keys() - known):
        there = ", ".join(sorted([*known, "model", "data", "trainer"]))
        raise ValueError(f"relearning.{name} has no setting {', '.join(unknown)}; it has {there}.")
    if {"max_steps", "max_epochs"} & (own.get("trainer") or {}).keys():
        raise ValueError(f"relearning.{name}: say how long it lasts by `steps`, not by trainer.max_steps or trainer.max_epochs.")
    rest = {key: value for key, value in given.items() if key in known}
    return Relearning(name, **{**rest, "probes": tuple(rest.get("probes") or ())}, settings=own)
