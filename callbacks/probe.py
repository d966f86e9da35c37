"""What every metric shares: when to measure, on which examples, on how many processes, and where the numbers go.

A metric is one file with one subclass:

    class ResponseLength(Probe):
        probe_name = "length"
        quantities = {"tokens": Quantity("response length", "tokens")}

        def predict(self, pl_module, examples, encoded, seed):
            return [{"tokens": len(e.response_ids)} for e in encoded]

        def metrics(self, rows):
            return {metric_key(self.name, "tokens"): mean(row["tokens"] for row in rows)}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Literal

import lightning.pytorch as pl
import torch
import torch.distributed
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.given import checked_metrics, checked_rows
from unlearn_lightning.data import Encoded, Encoder, Example, StageData
from unlearn_lightning.modules.unlearning import Unlearning
from unlearn_lightning.preemption import between_chunks
from unlearn_lightning.records import Quantity, metric_key, record_path, write_json

Row = dict[str, Any]
LOOKED_AT = 64
"""Of the unlearned examples, how many are looked at to see whether they show what a probe looks for."""


class Probe(pl.Callback):
    """Measures a probe set before step 1, every n optimizer steps and at the end; also under `unlearn validate`.

    Every process measures whole chunks of the probe set and all rows are gathered, so the mean is over examples and does not
    depend on the number of processes. Metrics go to the loggers; rows, metrics and what these mean to `records/<name>/<step>.json`,
    from where the report draws and tabulates every probe.

    Args:
        data: the stage the probe examples come from; null for the one that `of` names.
        split: `held_out` or `train`; null for `held_out`, or `train` where no examples are held out.
        limit: how many examples, from the first.
        every_n_steps: optimizer steps between measurements; 0 for start and end only.
        chunk_size: examples measured at once.
        name: of the record folder and the metrics' prefix, which tells two probes of one class apart; null for the metric's own.
        of: where `data` is null: `train` measures what is trained on (the forget set, in unlearning), `retain` the retain term's data.
    """

    probe_name: ClassVar[str]
    # Title, unit and direction of each metric, by the part of its name that follows the probe's.
    quantities: ClassVar[Mapping[str, Quantity]] = {}
    # The field of the rows that holds a generated text, or a list of them, which the report shows beside the prompt; null for none.
    answer_field: ClassVar[str | None] = None
    # What a probe needs of a retrained model that its `retrained` names: its `records` of this probe, or the `model`; empty for neither.
    compares: ClassVar[str] = ""
    # Whether `predict` gets all of a process's chunks in one call, as a generator does that keeps its batch full.
    whole_share: ClassVar[bool] = False
    # Whether chunks are of examples of like lengths, which need less padding, instead of neighbours; for metrics without random numbers.
    by_length: ClassVar[bool] = False

    def __init__(
        self,
        data: StageData | None = None,
        split: Literal["train", "held_out"] | None = None,
        limit: int | None = None,
        every_n_steps: int = 10,
        chunk_size: int = 16,
        name: str | None = None,
        of: Literal["train", "retain"] = "train",
    ) -> None:
        if every_n_steps < 0 or chunk_size < 1 or (limit is not None and limit < 1):
            raise ValueError(f"{type(self).__name__}: every_n_steps at least 0, limit and chunk_size at least 1, please.")
        if data is not None and of != "train":
            raise ValueError(f"{type(self).__name__}: `data` and `of: {of}` both say what is measured: leave one of them out.")
        self._data, self.split, self.limit, self.of = data, split, limit, of
        self.every_n_steps, self.chunk_size, self.name = every_n_steps, chunk_size, name or self.probe_name
        self.examples: list[Example] = []
        self.encoded: list[Encoded] = []
        self.encoder: Encoder
        # Why there is nothing to measure; null where there is.
        self.absent: str | None = None
        self._start: dict[str, float] = {}
        self._measured_step = -1

    @property
    def data(self) -> StageData:
        """The stage the probe examples come from."""
        assert self._data is not None, "the probe has not been set up"
        return self._data

    # --- what a metric says --------------------------------------------------------------------------------------------------

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Measures one chunk of examples; called in eval mode, without gradients.

        Args:
            pl_module: the module in eval mode, which answers `token_log_likelihood`, `response_log_likelihood`, `score_candidates` and
                `generate` (see `Queries`).
            examples: the examples of this chunk, as texts.
            encoded: the same examples as tokens.
            seed: a seed of this chunk's own, for probes that draw random numbers.

        Returns:
            One row of JSON values for each example, in their order.
        """
        raise NotImplementedError

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The metrics of all rows, by full name (use `metric_key`)."""
        raise NotImplementedError

    def describe(self, metrics: Mapping[str, float]) -> dict[str, Quantity]:
        """What each metric means, by its full name; a metric that `quantities` does not declare is left to its name."""
        declared = {metric_key(self.name, name): quantity for name, quantity in self.quantities.items()}
        return {key: declared[key] for key in metrics if key in declared}

    def since_start(self, metrics: dict[str, float]) -> dict[str, float]:
        """Metrics that compare with the first measurement of the run; none unless a metric says so."""
        return {}

    def start_value(self, key: str, now: dict[str, float]) -> float:
        """A metric's value at the first measurement of this run (now, if this is the first)."""
        return self._start.get(key, now[key])

    def shows(self, response: str) -> bool:
        """Whether a response shows what the probe looks for; only of probes that look for something that is to be forgotten."""
        return False

    def unknown(self, metrics: Mapping[str, float]) -> str:
        """Why a model with these metrics does not show what the probe looks for; empty where it does, or where the metrics do not say."""
        return ""

    def check(self, pl_module: Any) -> None:
        """Refuses what could not be measured; called once, before work starts, when the examples are read. Nothing unless overridden."""

    # --- when ----------------------------------------------------------------------------------------------------------------

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Reads and encodes the probe examples, so that bad data is found before work starts."""
        if self.encoded:
            return
        self._data = self._data or (trainer.datamodule if self.of == "train" else pl_module.retained_data)  # type: ignore[attr-defined]
        if self._data is None:
            self.absent = "nothing is retained here (model.retain.data names what would be)"
            return
        self.split = self.split or self.data.usual_split
        pl_module.backbone.check_length(self.data.max_length, f"max_length of the {self.data.stage_name} data of the probe {self.name}")
        self.encoder = self.data.encoder(pl_module.tokenizer)
        self.examples, self.encoded = self.data.measured(self.split, pl_module.tokenizer, self.limit)
        if self.encoded:
            self.check(pl_module)
        else:
            self.absent = f"no {self.data.stage_name} examples are held out (data.held_out_source or data.held_out_examples gives some)"

    def on_fit_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Says in one line which probes have nothing to measure for the same reason."""
        alike = [callback.name for callback in trainer.callbacks if isinstance(callback, Probe) and callback.absent == self.absent]  # type: ignore[attr-defined]
        if self.absent and self.name == alike[0]:
            rank_zero_info(f"Not measured: {', '.join(alike)}, as {self.absent}.")

    on_validation_start = on_test_start = on_fit_start

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measures before the first step, and where a run goes on that was stopped while it measured."""
        # A run that was stopped while it measured goes on with that.
        if trainer.global_step == 0 or (self.every_n_steps and trainer.global_step % self.every_n_steps == 0):
            self.measure(trainer, pl_module)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Measures every `every_n_steps` optimizer steps."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self.measure(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measures after the last optimizer step."""
        self.measure(trainer, pl_module)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measures under `unlearn validate`; a validation within training measures nothing."""
        if trainer.state.fn == TrainerFn.VALIDATING:
            self.measure(trainer, pl_module)

    def on_test_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Measures under `unlearn test`."""
        self.measure(trainer, pl_module)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the metrics at the start of the run, and the last step that was measured."""
        return {"start": self._start, "measured_step": self._measured_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over what `state_dict` gave."""
        self._start, self._measured_step = state_dict["start"], state_dict["measured_step"]

    @property
    def state_key(self) -> str:
        """The probe's name in a checkpoint, which tells two probes of one class apart."""
        return f"{type(self).__qualname__}.{self.name}"

    # --- how -----------------------------------------------------------------------------------------------------------------

    def measure(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, float]:
        """Measures now, unless this optimizer step was measured already or there are no examples, and returns the metrics."""
        step = trainer.global_step
        if step == self._measured_step or not self.encoded:
            return {}
        rows = gather(self._predict_share(trainer, pl_module), len(self.examples))
        metrics = checked_metrics(self, self.metrics(rows))
        metrics |= self.since_start(metrics)
        if (
            not self._start
            and trainer.state.fn == TrainerFn.FITTING
            and isinstance(pl_module, Unlearning)
            and (why := self.unknown(metrics))
            and self._is_to_be_forgotten(trainer)
        ):
            rank_zero_info(
                f"There is little to forget ({self.name}): {why}. Unlearn a model that was trained on the forget set "
                "(model.backbone.model, or model.backbone.adapter)."
            )
        self._start = self._start or dict(metrics)
        self._measured_step = step
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(metrics, step=step)
            write_json(record_path(Path(trainer.default_root_dir), self.name, step), self._record(step, metrics, rows))
        return metrics

    def _is_to_be_forgotten(self, trainer: pl.Trainer) -> bool:
        """Whether most of the probe's own responses, and of those that are unlearned now, show what it looks for."""
        unlearned = islice(trainer.datamodule.each_example("train"), LOOKED_AT)  # type: ignore[attr-defined]
        return all(2 * sum(shown) > len(shown) for some in (self.examples, unlearned) if (shown := [self.shows(e.response) for e in some]))

    def _record(self, step: int, metrics: dict[str, float], rows: list[Row]) -> dict[str, Any]:
        """What lies in the run folder for one step, as docs/runs.md describes it."""
        quantities = {key: quantity.as_json() for key, quantity in self.describe(metrics).items()}
        return {
            "probe": self.name, "class": f"{type(self).__module__}.{type(self).__qualname__}", "step": step, "metrics": metrics,
            "quantities": quantities, "answer_field": self.answer_field, "examples": rows,
        }  # fmt: skip

    def _predict_share(self, trainer: pl.Trainer, pl_module: Any) -> dict[int, Row]:
        mine: dict[int, Row] = {}
        with pl_module.inference():
            for number, part in self._parts(trainer.global_rank, trainer.world_size):
                examples = [self.examples[i] for i in part]
                rows = checked_rows(self, self.predict(pl_module, examples, [self.encoded[i] for i in part], seed=number), len(part))
                between_chunks()
                for i, example, row in zip(part, examples, rows, strict=True):
                    mine[i] = {"id": example.id, "text": example.prompt, **row}
        return mine

    def _parts(self, rank: int, world_size: int) -> list[tuple[int, list[int]]]:
        """What this process measures: the number of each chunk, and which examples are in it."""
        every = list(range(len(self.examples)))
        if self.by_length:
            every.sort(key=lambda i: len(self.encoded[i]))
        chunks = [every[first : first + self.chunk_size] for first in range(0, len(every), self.chunk_size)]
        mine = list(enumerate(chunks))[rank::world_size]
        return [(rank, [i for _, part in mine for i in part])] if self.whole_share and mine else mine


def gather(mine: dict[int, Row], count: int) -> list[Row]:
    """All processes' rows on every process, in the order of the examples, each exactly once."""
    shares: list[Any] = [mine]
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        shares = [None] * torch.distributed.get_world_size()
        torch.distributed.all_gather_object(shares, mine)
    merged = {i: row for share in shares for i, row in share.items()}
    return [merged[i] for i in range(count)]


def mean_of(rows: list[Row], quantity: str) -> float:
    """Mean of one quantity over rows."""
    return fmean(row[quantity] for row in rows)


__all__ = ["Probe", "Quantity", "Row", "gather", "mean_of", "metric_key"]
