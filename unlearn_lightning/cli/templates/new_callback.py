"""NewCallback: how unlikely a response becomes at its weakest token.

unlearn fit -c configs/stages/tofu.yaml -c configs/backbones/tiny-llama.yaml --trainer.callbacks+ new_callback.NewCallback
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callbacks.probe import Probe, Quantity, Row, mean_of, metric_key
from unlearn_lightning.data import Encoded, Example, collate


class NewCallback(Probe):
    """Log-likelihood of each response's least likely token, nats; mean over the probe's examples."""

    probe_name = "new_callback"
    quantities = {"least_token_log_lik": Quantity("least likely token", "nats", "higher")}

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """One row per example, kept in the run folder's `records/`."""
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        token_log_lik = pl_module.token_log_likelihood(batch)  # (B, T) nats; 0 outside of the responses
        return [{"least_token_log_lik": value} for value in token_log_lik.amin(dim=-1).tolist()]

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The logged numbers, from the rows of all examples and processes."""
        return {metric_key(self.name, "least_token_log_lik"): mean_of(rows, "least_token_log_lik")}
