"""Alternate preference optimisation: other plausible answers, which the starting model itself wrote, are preferred to the forgotten one.

unlearn alternates runs/tofu --samples 5 --out alternates.jsonl
unlearn fit -c configs/objectives/alt_po.yaml -c configs/backbones/tiny-llama.yaml --model.backbone.model runs/tofu/model \
    --data.source alternates.jsonl
"""

from __future__ import annotations

from unlearn_lightning.objectives.dpo import DPO


class AltPO(DPO):
    """DPO's loss (`dpo_loss`, with the factor 2/beta) on k alternate answers to each prompt; Mekala et al. 2025, arXiv:2409.13474.

    The data has one record for each pair of a prompt and an alternate, as `unlearn alternates` writes them, so that an epoch passes each
    prompt k times and the loss is a mean over these pairs. Log-likelihoods are sums over a response's tokens, as in DPO, and not divided
    by their number. The paper has k = 5, beta 0.1, a learning rate of 5e-5, 2 epochs, and a retain term of weight 1 (cross-entropy):
    `retain`. Without one the objective is local, as the alternates come from the starting model and the forget set.

    Args:
        beta: inverse temperature.
    """
