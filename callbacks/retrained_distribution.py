"""How far the model's predictions lie from the retrained model's, over the whole vocabulary.

- class_path: RetrainedDistribution
  init_args: {split: train, limit: 32, retrained: runs/retrained}

    unlearn validate RUN --trainer.callbacks+ RetrainedDistribution --against runs/retrained
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from callbacks.probe import Probe, Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData, collate
from unlearn_lightning.inference.distribution import distribution_distances
from unlearn_lightning.runs.measured import result_backbone
from unlearn_lightning.runs.moved import read_config

LIMIT = 2 * 2**30
"""Bytes of the retrained model's logits that are kept, over all processes."""


class RetrainedDistribution(Probe):
    """KL(retrained || model) and the Jensen-Shannon divergence over the whole vocabulary, mean over the response tokens of all examples.

    The retrained model's logits at the response tokens are computed once and kept in memory: with LoRA by its adapters on this run's own
    base network, with full fine-tuning by its weights, which are loaded beside this model for that moment alone.

    Args:
        data: the stage whose responses are predicted; null for the one that is trained on.
        limit: how many examples, from the first.
        chunk_size: examples passed through the network at once.
        retrained: run folder of the model trained without the forget stage; null where `--against` names it.
    """

    probe_name = "distribution"
    compares = "model"
    quantities = {
        "kl": Quantity("KL divergence from the retrained model", "nats/token", "lower"),
        "js": Quantity("Jensen-Shannon divergence to the retrained model", "nats/token", "lower"),
    }
    by_length = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = 32,
        every_n_steps: int = 0,
        chunk_size: int = 4,
        retrained: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        self.retrained = retrained
        self._theirs: Mapping[str, Any] = {}
        # (n, V) of the n response tokens of each example that this process measures.
        self._kept: dict[str, Tensor] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Measures nothing where no retrained model is named."""
        if self.retrained is None:
            self.absent = "no retrained model is named (retrained, or --against)"
            return
        super().setup(trainer, pl_module, stage)

    def check(self, pl_module: Any) -> None:
        """Refuses a retrained model that does not lie on the same base, and more logits than are kept.

        Raises:
            FileNotFoundError, ValueError: such a model, or weights in shards.
        """
        folder = Path(str(self.retrained))
        if not (folder / "config.yaml").is_file():
            raise FileNotFoundError(f"RetrainedDistribution: {folder} is no run folder: it has no config.yaml. The run must finish first.")
        if pl_module.in_shards:
            raise ValueError(
                "RetrainedDistribution: another model cannot be put into weights that lie in shards; set trainer.strategy to ddp."
            )
        self._theirs = result_backbone(folder, read_config(folder)["model"]["init_args"]["backbone"])
        own = pl_module.backbone
        if own.lora is not None and self._theirs["lora"] is None and self._is_base_of(own):
            # The model that the run's adapters lie on is itself the retrained one.
            self._theirs = {**self._theirs, "adapter": None}
        elif (own.lora is None) != (self._theirs["lora"] is None):
            raise ValueError(f"RetrainedDistribution: of this run and {folder} one has LoRA and the other none; both must have the same.")
        elif own.lora is not None:
            # Of a base with random weights, its shape and seed decide.
            for setting in ("model", "revision", "quantization", "dtype", *(("scratch", "seed") if own.model is None else ())):
                if _plain(getattr(own, setting)) != _plain(self._theirs[setting]):
                    raise ValueError(
                        f"RetrainedDistribution: backbone.{setting} is {getattr(own, setting)} here and {self._theirs[setting]} of the run "
                        f"{folder}, whose adapters need their own base."
                    )
        tokens, vocabulary = sum(len(one.response_ids) for one in self.encoded), len(pl_module.tokenizer)
        if (size := 4 * tokens * vocabulary) > LIMIT:
            raise ValueError(
                f"RetrainedDistribution: {tokens:,} response tokens times {vocabulary:,} logits of the retrained model take "
                f"{size / 2**30:.1f} GiB; {LIMIT / 2**30:.0f} GiB at most are kept. Lower `limit` of the probe {self.name}."
            )

    def _is_base_of(self, own: Any) -> bool:
        return own.model is not None and Path(own.model).absolute() == Path(str(self._theirs["model"])).absolute()

    def measure(self, trainer: Any, pl_module: Any) -> dict[str, float]:
        """Asks the retrained model first, once."""
        if self.encoded and not self._kept:
            parts = self._parts(trainer.global_rank, trainer.world_size)
            with torch.random.fork_rng(), pl_module.inference(), pl_module.other_logits(self._theirs) as logits:
                for _, part in parts:
                    self._keep(pl_module, [self.encoded[i] for i in part], logits)
        return super().measure(trainer, pl_module)

    def _keep(self, pl_module: Any, encoded: Sequence[Encoded], logits: Any) -> None:
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        found = logits(batch).float().cpu().split([len(one.response_ids) for one in encoded])
        self._kept |= {one.id: values.clone() for one, values in zip(encoded, found, strict=True)}

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Compares with what was kept, response by response."""
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        lengths = [len(one.response_ids) for one in encoded]
        pairs = zip(encoded, pl_module.response_logits(batch).split(lengths), strict=True)
        return [self._row(self._kept[one.id].to(logits.device), logits) for one, logits in pairs]

    def _row(self, theirs: Tensor, logits: Tensor) -> Row:
        if theirs.shape != logits.shape:
            raise ValueError(
                f"RetrainedDistribution: the retrained model has {theirs.shape[-1]:,} logits and this one {logits.shape[-1]:,}: they have "
                "different vocabularies."
            )
        kl, js = distribution_distances(theirs, logits)
        return {"tokens": len(kl), "kl": kl.mean().item(), "js": js.mean().item()}

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The means over all response tokens."""
        tokens = sum(row["tokens"] for row in rows)
        return {metric_key(self.name, what): sum(row[what] * row["tokens"] for row in rows) / tokens for what in ("kl", "js")}


def _plain(setting: Any) -> str:
    """A setting as JSON, whether it is a dataclass or was read from a configuration."""
    return json.dumps(asdict(setting) if is_dataclass(setting) and not isinstance(setting, type) else setting, sort_keys=True)
