"""The callback that makes a folder a run folder: its configuration, its result, and how it went. docs/runs.md is its contract."""

from __future__ import annotations

import math
import platform
import resource
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_only

from unlearn_lightning import __version__
from unlearn_lightning.data.examples import cut_in
from unlearn_lightning.models.backbone import save_result
from unlearn_lightning.preemption import was_asked
from unlearn_lightning.records import is_finished, write_json, write_text
from unlearn_lightning.runs.checkpoint import delete_checkpoints
from unlearn_lightning.runs.computed_with import computed_with
from unlearn_lightning.runs.content import files_of, result_of
from unlearn_lightning.runs.cut_short import cut_short_by
from unlearn_lightning.runs.measured import entries
from unlearn_lightning.runs.metrics_file import own_metrics
from unlearn_lightning.runs.moved import STARTED_IN

LIBRARIES = ("torch", "lightning", "transformers", "peft")


class RunRecorder(pl.Callback):
    """Writes config.yaml before work starts, and the adapter (or weights) and run.json at the end.

    Args:
        folder: the run folder.
        config: the whole resolved configuration.
        identity: what run.json says about the run from the start: key, parents, kind, model, data, seed.
        probe_keys: what identifies the measurements of each probe, by name (`run_key.probe_key`).
    """

    stages: ClassVar[tuple[str, ...]] = ("fit",)

    def __init__(self, folder: Path, config: dict[str, Any], identity: dict[str, Any], probe_keys: Mapping[str, str]) -> None:
        self.folder, self.config, self.identity, self.probe_keys = folder, config, identity, probe_keys
        self._seconds = 0.0
        self._since = time.monotonic()
        self._told = -math.inf
        self._computed_with: dict[str, Any] = {}

    def setup(self, trainer: pl.Trainer, pl_module: Any, stage: str) -> None:
        """Writes configuration and status."""
        if stage in self.stages:
            self._since = time.monotonic()
            self._computed_with = computed_with(self.config, trainer)
            self._write_start()

    @rank_zero_only
    def _write_start(self) -> None:
        write_text(self.folder / "config.yaml", yaml.safe_dump({**self.config, "run_folder": str(self.folder)}, sort_keys=False))
        self._write_run("running")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        """Writes how far and how fast the run is, once a second at most, for those who watch from outside."""
        if trainer.is_global_zero and time.monotonic() - self._told >= 1:
            self._told = time.monotonic()
            steps = trainer.datamodule.total_steps()  # type: ignore[attr-defined]
            speed = round(pl_module.tokens_seen / self._elapsed(), 1)
            write_json(self.folder / "progress.json", {"step": trainer.global_step, "steps": steps, "tokens_per_second": speed})

    def on_train_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Saves the result; all processes put its shards together, where there are any, and the first one writes."""
        with pl_module.outcome():
            save_result(pl_module.net, pl_module.tokenizer, self.folder, write=trainer.is_global_zero)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Marks the run as finished, or as cut short; by now every other callback has written its last record."""
        facts, flag = self._facts(trainer, pl_module), cut_short_by(trainer)
        if trainer.is_global_zero:
            for logger in own_metrics(trainer):
                logger.save()
            if flag is None:
                self._write_run("finished", **facts, result=result_of(self.folder), files=files_of(self.folder))
            else:
                self._write_run("cut_short", **facts, cut_short_by=flag)
                rank_zero_info(
                    f"{flag} cut this run short at step {trainer.global_step}: it is not finished, and no study or later run takes it for "
                    "one. The same command without it begins anew."
                )
            delete_checkpoints(self.folder)
            (self.folder / "progress.json").unlink(missing_ok=True)

    def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
        """Marks the run as failed, or as stopped (Ctrl-C, SIGTERM), which the same command goes on with; its checkpoint stays."""
        if not trainer.is_global_zero or not (self.folder / "config.yaml").is_file():
            return
        if was_asked() or not isinstance(exception, Exception):
            if not is_finished(self.folder):
                self._write_run("stopped", steps=trainer.global_step)
        else:
            message = f"{type(exception).__name__}: {exception}".strip()
            self._write_run("failed", steps=trainer.global_step, error=message)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the seconds that the run has taken so far."""
        return {"seconds": self._elapsed()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on counting from the seconds of the interrupted run."""
        self._seconds = state_dict["seconds"]

    def _elapsed(self) -> float:
        return self._seconds + time.monotonic() - self._since

    def _facts(self, trainer: pl.Trainer, pl_module: Any) -> dict[str, Any]:
        data, seconds = trainer.datamodule, self._elapsed()  # type: ignore[attr-defined]
        peak = torch.tensor(peak_memory_bytes(), device=pl_module.device)
        return {
            "steps": trainer.global_step,
            "examples": len(data.encoded["train"]),
            "truncated": cut_in(data.encoded["train"]),
            "tokens": pl_module.tokens_seen,
            "seconds": round(seconds, 3),
            "tokens_per_second": round(pl_module.tokens_seen / seconds, 1),
            "peak_memory_bytes": int(trainer.strategy.reduce(peak, reduce_op="max")),
        }

    def _write_run(self, status: str, **facts: Any) -> None:
        versions = {"unlearn_lightning": __version__, "python": platform.python_version()}
        versions |= {name: version(name) for name in LIBRARIES}
        probes = entries(self.folder, self.probe_keys, facts.get("steps", 0))
        content = {
            "status": status, **self.identity, "error": None, **facts, "probes": probes, "computed_with": self._computed_with,
            "versions": versions, STARTED_IN: str(Path.cwd()),
        }  # fmt: skip
        write_json(self.folder / "run.json", content, indent=1)


class MeasuredRecorder(RunRecorder):
    """The same for a model that is measured only: its configuration and run.json, and no result."""

    stages = ("validate", "test")

    def finish(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Marks the measurement as finished, when all records are written."""
        peak = torch.tensor(peak_memory_bytes(), device=pl_module.device)
        encoded = trainer.datamodule.encoded  # type: ignore[attr-defined]
        facts = {
            "steps": 0, "examples": sum(len(examples) for examples in encoded.values()), "truncated": 0, "tokens": 0,
            "seconds": round(self._elapsed(), 3), "tokens_per_second": 0.0,
            "peak_memory_bytes": int(trainer.strategy.reduce(peak, reduce_op="max")),
        }  # fmt: skip
        if trainer.is_global_zero:
            self._write_run("finished", **facts, result=None, files=files_of(self.folder))


def peak_memory_bytes() -> int:
    """Peak memory of this process: the GPU's allocator where there is one, resident memory elsewhere."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
