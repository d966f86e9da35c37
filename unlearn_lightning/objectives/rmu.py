"""RMU: the forget set's activations in one layer are steered to a random direction, and the retain set's are kept where they were.

unlearn fit -c configs/objectives/rmu.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from unlearn_lightning.data import Batch
from unlearn_lightning.models.adapters import eval_mode, reference_mode, train_only
from unlearn_lightning.models.step_size import StepSize
from unlearn_lightning.modules import Unlearning
from unlearn_lightning.modules.activations import check_activations, decoder_layers, layer_output, parameters_of
from unlearn_lightning.modules.reference_logits import KeptLogits


def activation_distance(hidden: Tensor, target: Tensor) -> Tensor:
    """Mean over the units of the squared difference; Li et al. 2024, arXiv:2403.03218, eq. 1 and 2 (which print the sum over the units).

    Args: hidden, target: (..., d).   Returns: (...) in squared units of the residual stream.
    """
    return (hidden.float() - target.float()).square().mean(-1)


def steering_vector(width: int, seed: int) -> Tensor:
    """(width,) uniform numbers of [0, 1), scaled to norm 1, so that no component is negative; the same in the whole run."""
    drawn = torch.rand(width, generator=torch.Generator().manual_seed(seed))
    found: Tensor = drawn / drawn.norm()
    return found


class RMU(Unlearning):
    """Representation misdirection for unlearning; means over the response tokens of the whole batch, and over the hidden size.

    At the output of one decoder layer the forget set's activations h approach c · u, with u a random vector of norm 1; with
    `retain.loss: activations` the retain set's stay where the starting model has them. Its weight is the paper's alpha: 1200 for Zephyr-7B
    with c 6.5, 100 with c 20 in the authors' script, and 1 with c 2 in OpenUnlearning. Local without a retain term, which is half of RMU.

    The authors' code averages over all tokens, padding included; OpenUnlearning over the tokens of each response and then over the
    micro-batch; G-effect takes the KL divergence for the retain term (`retain.loss: kl`). The starting model's activations come from the
    net with its adapter off; full fine-tuning keeps those of the retain examples that the run sees, once, before step 1.

    Args:
        layer: number of the decoder layer from 0; null for a quarter of the depth, which is 7 of 32. The last one is refused.
        steering_coefficient: c, the length that steered activations get. `train/activation_norm` logs what they have: a larger one needs a
            larger c.
        trained_layers: numbers of the decoder layers that are trained; null for `layer` and the two below it.
        trained_parameters: which of their weights are, by a part of the name; empty for all. The authors train down_proj.
    """

    average = "tokens"
    retain_losses = (*Unlearning.retain_losses, "activations")

    def __init__(
        self,
        *args: Any,
        layer: int | None = None,
        steering_coefficient: float = 2.0,
        trained_layers: list[int] | None = None,
        trained_parameters: str = "down_proj",
        **kwargs: Any,
    ) -> None:
        # No reference log-likelihood is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        if not 0 < steering_coefficient < math.inf:
            raise ValueError(f"RMU needs steering_coefficient above 0, got {steering_coefficient}.")
        self.layer, self.steering_coefficient = layer, steering_coefficient
        self.trained_layers, self.trained_parameters = trained_layers, trained_parameters
        self._kept_activations: KeptLogits | None = None

    def build(self) -> nn.Module:
        """The net of unlearning, of which the chosen weights alone are trained.

        Raises:
            ValueError: the layer is none of the model's, or nothing would be trained.
        """
        net = super().build()
        count = len(decoder_layers(net))
        self.layer = max(0, min(count - 2, max(1, count // 4 - 1))) if self.layer is None else self.layer
        if not 0 <= self.layer < count - 1:
            raise ValueError(f"RMU steers one of the layers 0 to {count - 2} of this model's {count}, got layer {self.layer}.")
        trained = range(max(0, self.layer - 2), self.layer + 1) if self.trained_layers is None else self.trained_layers
        # What lies behind the layer would get no gradient.
        if not trained or not 0 <= min(trained) <= max(trained) <= self.layer:
            raise ValueError(f"RMU trains layers from 0 to the steered one, {self.layer}; got trained_layers {list(trained)}.")
        names = parameters_of(net, trained, self.trained_parameters)
        if not names:
            raise ValueError(
                f"RMU finds no trainable weight named {self.trained_parameters!r} in the layers {list(trained)}. Name another part in "
                "trained_parameters, or adapt these layers (backbone.lora.target_modules)."
            )
        train_only(net, names)
        return net

    def setup(self, stage: str) -> None:
        """Also refuses activations of the retain data that would not fit.

        Raises:
            ValueError: they would not.
        """
        super().setup(stage)
        if stage == "fit" and self._keeps_activations:
            # The net is built later; an architecture whose configuration does not tell its width is let through.
            size = StepSize.of(self.backbone)
            check_activations(type(self).__name__, self._retained_in_run(), 0 if size is None else size.hidden)

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) squared distances to c · u, summed over response tokens."""
        assert self.layer is not None
        hidden = layer_output(self.net, self.layer, batch).float()
        norms = self.per_response(hidden.detach().norm(dim=-1), batch) / batch.response_mask.sum(-1)
        self.log_step_value("train/activation_norm", norms, batch)
        target = self.steering_coefficient * steering_vector(hidden.shape[-1], self.backbone.seed or 0).to(hidden)
        return self.per_response(activation_distance(hidden, target), batch)

    def retain_loss(self, batch: Batch) -> Tensor:
        """(B,) squared distances to the starting model's activations, or another retain loss, summed over response tokens."""
        assert self.retain is not None
        assert self.layer is not None
        if self.retain.loss != "activations":
            return super().retain_loss(batch)
        hidden = layer_output(self.net, self.layer, batch)
        return self.per_response(activation_distance(hidden, self.reference_activations(batch)), batch)

    def reference_activations(self, batch: Batch) -> Tensor:
        """(N, d) the starting model's activations at the batch's response tokens; no gradient."""
        assert self.layer is not None
        if self._kept_activations is not None:
            return self._kept_activations.of_batch(batch)
        with reference_mode(self.net):
            return layer_output(self.net, self.layer, batch)

    # --- the starting model's activations, kept for full fine-tuning -------------------------------------------------------------

    @property
    def _keeps_activations(self) -> bool:
        return self.retain is not None and self.retain.loss == "activations" and self.backbone.lora is None

    def _retained_in_run(self) -> list[Any]:
        assert self._retain_batches is not None
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        plan = data.plan("train")
        per_epoch = math.ceil(data.micro_batches_per_epoch() / plan.accumulation)
        return self._retain_batches.examples_of_run(plan, data.total_steps(), per_epoch)

    @torch.no_grad()
    def on_train_start(self) -> None:
        """Computes the activations that full fine-tuning is about to move; a resumed run has them in its checkpoint."""
        super().on_train_start()
        if not self._keeps_activations or self._kept_activations is not None:
            return
        at_once, layer = self.trainer.datamodule.plan("train").micro_batch_size, self.layer  # type: ignore[attr-defined]
        assert layer is not None

        def activations(batch: Batch) -> Tensor:
            return layer_output(self.net, layer, batch.to(self.device))

        with eval_mode(self.net), self.trainer.precision_plugin.forward_context():
            self._kept_activations = KeptLogits.of(self._retained_in_run(), at_once, self.tokenizer.pad_token_id, activations)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the kept activations, which the moved weights could no longer give."""
        super().on_save_checkpoint(checkpoint)
        if self._kept_activations is not None:
            checkpoint["reference_activations"] = self._kept_activations.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores what was kept."""
        super().on_load_checkpoint(checkpoint)
        if (kept := checkpoint.get("reference_activations")) is not None:
            self._kept_activations = KeptLogits.from_state(kept)
