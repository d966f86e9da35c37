"""Projected-gradient unlearning: the forget set is made unlikely by updates that leave the inputs of the retain set alone.

unlearn fit -c configs/objectives/pgu.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_lightning.data import Batch, collate
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.models.adapters import TRAINABLE, eval_mode, train_only
from unlearn_lightning.modules import Unlearning
from unlearn_lightning.modules.subspaces import InputMoments, Subspaces, check_size, input_places


def pgu_loss(logits: Tensor, tokens: Tensor, offset: float, entropy_weight: float) -> Tensor:
    """-log(1 - (p - o)) - w H, p the token's probability and H the prediction's entropy; Hoang et al. 2024, arXiv:2312.04095 (code).

    Args:
        logits: (N, V) that predict the tokens.
        tokens: (N,) the tokens to be forgotten.
        offset: o, which bounds the first term by -log o.
        entropy_weight: w.

    Returns:
        (N,) nats.
    """
    log_probs = logits.float().log_softmax(-1)
    # 1 - p without cancellation where p is near 0 or 1.
    rest = -torch.expm1(log_probs.gather(-1, tokens[:, None])[:, 0])
    return -(rest + offset).log() + entropy_weight * (log_probs.exp() * log_probs).sum(-1)


class PGU(Unlearning):
    """Projected-gradient unlearning; mean over the response tokens of the whole batch.

    Its gradients come from the forget set alone, but its projections from the retain set: not local.

    Before step 1 one pass over the retain data, without gradients, collects the second moments of the inputs of every linear layer in the
    decoder layers, over all real tokens; d by d numbers in float64 for a layer of d inputs, which are refused above 4 GiB. Of these
    inputs the leading directions are taken, and no update of the layer's weight may have a part in them. The *update* is projected and not
    the gradient, as the authors' code for plain SGD does, because Adam's preconditioner leads out of the projected space. All other
    weights (embeddings, norms, biases, head) are frozen. The authors' code takes the moments of all training data minus those of the
    forget set. It is for image classifiers, and there is no public one for language models.

    With an adapter its first matrix's updates are projected, and so is its random start, whose directions the second matrix would train.

    Args:
        share: of the singular values, the directions that are left alone have so much together; 0 projects nothing. 0.9 in the paper.
        offset: o, above 0; 0.05 in the authors' code.
        entropy_weight: w; 0.2 in the authors' code.
    """

    average = "tokens"
    retain_losses = ("subspace", *Unlearning.retain_losses)

    def __init__(self, *args: Any, share: float = 0.9, offset: float = 0.05, entropy_weight: float = 0.2, **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if self.retain is None:
            raise ValueError(
                "PGU projects its updates by the inputs of a retain set: name it in model.retain.data, with retain.loss subspace (or "
                "another loss, which is then added)."
            )
        if self.retain.loss == "subspace" and self.retain.weight != 1:
            raise ValueError(f"retain.loss subspace adds no loss that a weight could count: leave it at 1, got {self.retain.weight}.")
        if not (0 <= share < 1 and 0 < offset < math.inf and 0 <= entropy_weight < math.inf):
            raise ValueError(
                f"PGU needs share of at least 0 and below 1, offset above 0 and entropy_weight of at least 0; got {share}, {offset} and "
                f"{entropy_weight}."
            )
        self.share, self.offset, self.entropy_weight = share, offset, entropy_weight
        self._subspaces: Subspaces | None = None

    @property
    def adds_retain_loss(self) -> bool:
        """Only where another loss than `subspace` is chosen."""
        return self.retain is not None and self.retain.loss != "subspace"

    def build(self) -> nn.Module:
        """The net of unlearning, of which those weights alone are trained that can be projected, and an adapter's second matrices.

        Raises:
            ValueError: there are none, or FSDP2 cuts the weights.
        """
        if self.device_mesh is not None:
            raise ValueError("PGU projects whole weights, which FSDP2 cuts into shards: set trainer.strategy to ddp.")
        net = super().build()
        names = list(input_places(net))
        if not names:
            raise ValueError("PGU finds no linear layer in this model's decoder layers whose update it could project: train an adapter.")
        seconds = [name.replace(f"lora_A.{TRAINABLE}", f"lora_B.{TRAINABLE}") for name in names]
        train_only(net, {*names, *seconds})
        return net

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats, summed over response tokens."""
        logits = response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)
        return self.per_response(pgu_loss(logits, batch.input_ids[batch.response_mask], self.offset, self.entropy_weight), batch)

    # --- the projection ----------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:
        """Also refuses moments that would not fit.

        Raises:
            ValueError: they would not.
        """
        super().on_fit_start()
        check_size(type(self).__name__, self.net, input_places(self.net))

    def on_train_start(self) -> None:
        """Reads the retain data once; a resumed run has the subspaces in its checkpoint."""
        super().on_train_start()
        if self._subspaces is None:
            found = self._read_retain_data().subspaces(self.share)
            # All processes take the first one's, so that their weights stay the same to the last bit; from the CPU, because tensors that
            # are sent as objects would all come to lie on the first one's GPU.
            found.bases = self.trainer.strategy.broadcast({name: basis.cpu() for name, basis in found.bases.items()})
            found.keep(self.net)
            found.project(self.net)
            self._subspaces = found
            self._tell(found)

    @torch.no_grad()
    def _read_retain_data(self) -> InputMoments:
        """The moments over all processes, each of which passes its share of the data."""
        assert self._retain_batches is not None
        examples, at_once = self._retain_batches.encoded, self.trainer.datamodule.plan("train").micro_batch_size  # type: ignore[attr-defined]
        moments = InputMoments(self.net, input_places(self.net))
        chunks = [range(first, min(first + at_once, len(examples))) for first in range(0, len(examples), at_once)]
        with eval_mode(self.net), self.trainer.precision_plugin.forward_context():
            for number in range(self.global_rank, max(len(chunks), self.trainer.world_size), self.trainer.world_size):
                # A process without a share passes one chunk that counts for nothing, because all have the same layers to add up.
                chunk = [examples[i] for i in chunks[min(number, len(chunks) - 1)]]
                batch = collate(chunk, self.tokenizer.pad_token_id).to(self.device)
                with moments.counting(batch.attention_mask.bool() & (number < len(chunks))):
                    self.net(input_ids=batch.input_ids, attention_mask=batch.attention_mask, logits_to_keep=1, use_cache=False)
        for name in sorted(moments.moments):
            moments.moments[name] = self.trainer.strategy.reduce(moments.moments[name], reduce_op="sum")
        return moments

    def _tell(self, found: Subspaces) -> None:
        shares = [basis.shape[1] / basis.shape[0] for basis in found.bases.values()]
        if self.trainer.is_global_zero:
            print(
                f"PGU leaves {min(shares):.0%} to {max(shares):.0%} of the input directions of {len(found.basis_of)} weights alone "
                f"(share {self.share:g}).", flush=True,
            )  # fmt: skip

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Also takes the update's part in the subspaces back."""
        super().optimizer_step(*args, **kwargs)
        assert self._subspaces is not None
        self._subspaces.project(self.net)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the subspaces, which the moved weights could no longer give."""
        super().on_save_checkpoint(checkpoint)
        if self._subspaces is not None:
            checkpoint["subspaces"] = self._subspaces.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores them."""
        super().on_load_checkpoint(checkpoint)
        if (state := checkpoint.get("subspaces")) is not None:
            self._subspaces = Subspaces(**state)
