"""How fast training goes, and how much memory it takes.

- class_path: Throughput
  init_args: {every_n_steps: 10, peak_flops: null}
"""

from __future__ import annotations

import time
from typing import Any

import lightning.pytorch as pl
import torch

from unlearn_lightning.models.flops import Matrices, peak_flops
from unlearn_lightning.records import metric_key
from unlearn_lightning.runs.run_recorder import peak_memory_bytes


class Throughput(pl.Callback):
    """Logs the speed of the last optimizer steps to all loggers; no part of a run's key, as it changes no result.

    `speed/tokens_per_second`: real tokens, prompts and responses, over all devices. `speed/padded_per_token`: tokens with padding per real
    token. `speed/seconds_per_step`. `speed/share_of_peak`: FLOPs per second and device over the device's peak. FLOPs are those the step
    needs: 2 per weight and token for each of forward, backward, and gradient of trained weights, with the vocabulary's head at response
    tokens only. Attention scores, padding and recomputation are left out, and what shortcuts save counts as done: the share says how fast
    the work gets done, not how busy the device is.
    `speed/peak_memory_bytes`: largest over devices, since the process started; of the GPU's allocator, or resident on a CPU.

    Time runs from a batch's start to its end: without waiting for data, and without the other callbacks' measurements.

    Args:
        every_n_steps: optimizer steps averaged over, and between lines.
        peak_flops: of one device, per second, dense, in the run's precision; null for what data sheets say of the GPU. Where that is not
            known, as on a CPU, no share is logged.
    """

    def __init__(self, every_n_steps: int = 10, peak_flops: float | None = None) -> None:
        if every_n_steps < 1 or (peak_flops is not None and peak_flops <= 0):
            raise ValueError(f"Throughput: every_n_steps {every_n_steps} must be at least 1, and peak_flops {peak_flops} above 0.")
        self.every_n_steps, self.peak_flops = every_n_steps, peak_flops
        self._peak: float | None = None
        self._matrices: Matrices
        self._since = 0.0
        self._forget()

    def _forget(self) -> None:
        self._seconds, self._flops, self._tokens, self._padded, self._steps = 0.0, 0, 0, 0, 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
        """Counts the weights, and looks up how many FLOPs per second the device can do."""
        # First in line, so that a batch ends here before probes measure. A new list, as the old one is being gone through.
        trainer.callbacks = [self, *(callback for callback in trainer.callbacks if callback is not self)]  # type: ignore[attr-defined]
        self._matrices = pl_module.matrices()
        self._peak = self.peak_flops or peak_flops(pl_module.device, compute_dtype(trainer, pl_module))
        self._step = trainer.global_step
        self._forget()

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Starts the clock of one micro-batch."""
        self._since = time.perf_counter()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Adds up time, FLOPs and tokens, and logs them every `every_n_steps` optimizer steps."""
        stepped = trainer.global_step > self._step
        due = stepped and trainer.global_step % self.every_n_steps == 0
        if due and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._seconds += time.perf_counter() - self._since
        for part in pl_module.passed(batch):
            self._flops += self._matrices.training_flops(part.tokens, part.response_tokens, pl_module.reads_reference)
            self._tokens += part.tokens
            self._padded += part.input_ids.numel()
        self._steps += trainer.global_step - self._step
        self._step = trainer.global_step
        if due:
            self._log(trainer, pl_module.device)

    def _log(self, trainer: pl.Trainer, device: torch.device) -> None:
        mine = torch.tensor([self._tokens, self._padded, self._flops, self._seconds], dtype=torch.float64)
        world = trainer.world_size
        total = trainer.strategy.reduce(mine.to(device if device.type != "mps" else "cpu"), reduce_op="sum")
        tokens, padded, flops, seconds = total.tolist()
        memory = trainer.strategy.reduce(torch.tensor(float(peak_memory_bytes()), device=device), reduce_op="max")
        values = {
            "tokens_per_second": tokens / (seconds / world),
            "padded_per_token": padded / tokens,
            "seconds_per_step": seconds / world / self._steps,
            "peak_memory_bytes": float(memory),
        }
        if self._peak:
            values["share_of_peak"] = flops / seconds / self._peak
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics({metric_key("speed", name): value for name, value in values.items()}, step=trainer.global_step)
        self._forget()


def compute_dtype(trainer: pl.Trainer, pl_module: Any) -> torch.dtype:
    """What matrices are multiplied in: the trainer's precision, or else the backbone's."""
    precision = str(trainer.precision)
    if "bf16" in precision:
        return torch.bfloat16
    return torch.float16 if precision.startswith("16") else getattr(torch, pl_module.backbone.dtype)
