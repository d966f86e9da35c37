"""Whether the forget set can still be told from texts that were never trained on.

- class_path: MembershipInference
  init_args: {split: train, limit: 40, holdout: {class_path: TofuStage, init_args: {source: holdout.json}}}
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.compared import Compared
from callbacks.probe import Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData, collate
from unlearn_lightning.inference import membership
from unlearn_lightning.inference.distribution import standardised


class MembershipInference(Compared):
    """AUC of telling forget from holdout texts by loss, zlib, Min-K%, Min-K%++, gradient norm and a reference model; scores in the records.

    An AUC of 1 says that the forget set clearly was trained on, 0.5 that nothing tells, 0 that it is forgotten beyond what was never seen;
    the target is the retrained model's AUC, which stands beside it with `retrained`. Then the reference attack and PrivLeak are there, too.
    PrivLeak is refused where the retrained model's AUC nears 1. Scores count all response tokens with the end of turn; OpenUnlearning
    leaves that out of Min-K%, Min-K%++ and gradient norm.

    Args:
        data: the stage with the forget set; null for the one that `of` names.
        limit: how many examples of each of both sets, from the first.
        chunk_size: examples passed through the network at once.
        holdout: the stage with texts that were never trained on; null for the held-out part of `data`.
        holdout_split: which part of it; null for `train` where it holds nothing out, else for `held_out`.
        k: share of the least likely tokens in Min-K% and Min-K%++. OpenUnlearning's class has 0.2, its configurations and MUSE 0.4.
        gradnorm: measure the gradient norm, which takes a backward pass per example: the mean over the trained weights' tensors (an
            adapter's with LoRA, else all) of their gradients' 2-norms. Without dropout; OpenUnlearning has it on.
    """

    probe_name = "membership"
    quantities = {
        **{f"{attack}_auc": Quantity(f"AUC by {title}", "", "higher") for attack, title in membership.ATTACKS.items()},
        **{f"{attack}_auc_retrained": Quantity(f"AUC by {title}, retrained model", "") for attack, title in membership.ATTACKS.items()},
        "privleak": Quantity("PrivLeak (0 is best)", "%"),
    }
    by_length = True

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = None,
        every_n_steps: int = 0,
        chunk_size: int = 4,
        holdout: StageData | None = None,
        holdout_split: Literal["train", "held_out"] | None = None,
        k: float = 0.4,
        gradnorm: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        if not 0 < k <= 1:
            raise ValueError(f"MembershipInference: k must be above 0 and at most 1, got {k}.")
        self.holdout, self.holdout_split, self.k, self.gradnorm = holdout, holdout_split, k, gradnorm
        self._holdout_ids: set[str] = set()

    def check(self, pl_module: Any) -> None:
        """Reads the holdout set, whose examples are measured behind the forget set's.

        Raises:
            ValueError: there is none, it is the forget set itself, or gradients lie in shards.
        """
        data = self.holdout or self.data
        split = self.holdout_split or (data.usual_split if self.holdout else "held_out")
        if self.holdout is None and split == self.split:
            raise ValueError(f"MembershipInference: forget and holdout set are both the {split} part of {data.stage_name}: set `holdout`.")
        if self.gradnorm and pl_module.in_shards:
            raise ValueError("MembershipInference: weights in shards have no gradient norms: set gradnorm to false, or strategy to ddp.")
        examples, encoded = data.measured(split, pl_module.tokenizer, self.limit)
        if not examples:
            raise ValueError(
                f"MembershipInference: the {split} part of {data.stage_name} is empty: set `holdout` to texts never trained on."
            )
        self.examples = [*self.examples, *(replace(one, id=f"holdout-{one.id}") for one in examples)]
        self.encoded = [*self.encoded, *(replace(one, id=f"holdout-{one.id}") for one in encoded)]
        self._holdout_ids = {one.id for one in self.examples[-len(examples) :]}
        super().check(pl_module)

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Every attack's score of each example."""
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        log_lik, above = standardised(pl_module.response_logits(batch), batch.input_ids[batch.response_mask])
        lengths = [len(one.response_ids) for one in encoded]
        parts = zip(examples, encoded, log_lik.split(lengths), above.split(lengths), strict=True)
        return [self._row(pl_module, example, one, mine.tolist(), high.tolist()) for example, one, mine, high in parts]

    def _row(self, pl_module: Any, example: Example, encoded: Encoded, log_lik: list[float], above: list[float]) -> Row:
        loss = -sum(log_lik) / len(log_lik)
        row = {
            "holdout": example.id in self._holdout_ids, "tokens": len(log_lik), "loss": loss,
            "zlib": membership.zlib_score(loss, example.response),
            "zlib_whole": membership.zlib_score(loss, example.prompt + example.response),
            "min_k": membership.min_k(log_lik, self.k), "min_k_pp": membership.min_k(above, self.k),
        }  # fmt: skip
        return {**row, "gradnorm": pl_module.gradient_norm(encoded)} if self.gradnorm else row

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The AUC of each attack, and beside it the retrained model's; says why where PrivLeak is refused."""
        found = membership.aucs(rows)
        if (theirs := self.retrained_rows()) is not None:
            more, refused = membership.against_retrained(rows, theirs)
            found |= more
            if refused:
                rank_zero_info(f"{self.name}: no PrivLeak. {refused}")
        return {metric_key(self.name, quantity): value for quantity, value in found.items()}
