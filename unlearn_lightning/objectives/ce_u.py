"""CE-U: the model is taught its own predictions with the forgotten token left out.

unlearn fit -c configs/objectives/ce_u.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model RUN/model
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from unlearn_lightning.data import Batch
from unlearn_lightning.inference.likelihood import response_logits
from unlearn_lightning.modules import Unlearning


def ce_u_loss(logits: Tensor, tokens: Tensor) -> Tensor:
    """Cross-entropy to q, which is the model's prediction without the token, renormalised and held fixed; Yang 2025, arXiv:2503.01224.

    It equals H(q) - log(1 - p), and its gradient at the token's logit is p, so that no step is unbounded.

    Args:
        logits: (N, V) that predict the tokens.
        tokens: (N,) the tokens to be forgotten.

    Returns:
        (N,) nats.
    """
    log_probs = logits.float().log_softmax(-1)
    with torch.no_grad():
        target = logits.float().scatter(-1, tokens[:, None], -torch.inf).softmax(-1)
    # The token's own place has weight 0; its log p may be -inf, and 0 times that is no number.
    return -(target * log_probs.scatter(-1, tokens[:, None], 0.0)).sum(-1)


class CEU(Unlearning):
    """Cross-entropy unlearning of the forget set; mean over the counted response tokens of the whole batch.

    Args:
        skip_first: leave out each response's first token, as the paper does; a response of one token then has none left and is refused.
    """

    average = "tokens"

    def __init__(self, *args: Any, skip_first: bool = True, **kwargs: Any) -> None:
        # No reference is asked for, so that `cache_reference` is no setting of this objective.
        super().__init__(*args, cache_reference=False, **kwargs)  # type: ignore[misc]
        self.skip_first = skip_first

    def setup(self, stage: str) -> None:
        """Also looks for responses of which nothing would be left.

        Raises:
            ValueError: `skip_first` leaves nothing of a response.
        """
        super().setup(stage)
        if stage == "fit" and self.skip_first:
            short = [example.id for example in self._training_examples() if len(example.response_ids) < 2]
            if short:
                raise ValueError(
                    f"CEU leaves out each response's first token, and {len(short)} responses have only one, such as that of {short[0]}. "
                    "Set skip_first to false, or leave these examples out."
                )

    def forget_loss(self, batch: Batch) -> Tensor:
        """(B,) nats, summed over the counted tokens, and scaled so that the batch's mean is over these."""
        logits = response_logits(self.net, batch.input_ids, batch.attention_mask, batch.response_mask)
        values = ce_u_loss(logits, batch.input_ids[batch.response_mask])
        if not self.skip_first:
            return self.per_response(values, batch)
        # True where the token before is one of the response, too.
        counted = (batch.response_mask & batch.response_mask.roll(1, -1))[batch.response_mask]
        return self.per_response(values * counted, batch) * batch.batch_tokens / (batch.batch_tokens - batch.batch_examples)
