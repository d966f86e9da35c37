"""Whether knowledge that should stay does stay: log-likelihood of its responses, for example TOFU answers.

- class_path: RetainLikelihood
  init_args: {data: {class_path: TofuStage}, split: train, limit: 80, every_n_steps: 2}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from callbacks.probe import Probe, Quantity, Row, mean_of, metric_key
from unlearn_lightning.data import Encoded, Example, collate
from unlearn_lightning.inference.likelihood import mean_token


class RetainLikelihood(Probe):
    """Mean per-token log-likelihood (nats) of the probe's responses, averaged over examples; metric `<name>/<stage>_log_lik`.

    The paper's utility is 1 - |change| of it on TOFU answers.
    """

    probe_name = "retain"
    by_length = True

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Scores the responses themselves."""
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        values = mean_token(pl_module.token_log_likelihood(batch), batch.response_mask).tolist()
        return [{"response": e.response, "mean_token_log_lik": v} for e, v in zip(examples, values, strict=True)]

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The mean over examples."""
        return {self._key("log_lik"): mean_of(rows, "mean_token_log_lik")}

    def since_start(self, metrics: dict[str, float]) -> dict[str, float]:
        """Change since the first measurement: negative when lost."""
        key = self._key("log_lik")
        return {self._key("change"): metrics[key] - self.start_value(key, metrics)}

    def describe(self, metrics: Mapping[str, float]) -> dict[str, Quantity]:
        """The log-likelihood and its change, of the stage that is measured."""
        stage = self.data.stage_name
        return {
            self._key("log_lik"): Quantity(f"log-likelihood of {stage} responses", "nats/token", "higher"),
            self._key("change"): Quantity(f"change of the log-likelihood of {stage} responses", "nats/token", "higher"),
        }

    def _key(self, quantity: str) -> str:
        return metric_key(self.name, f"{self.data.stage_name}_{quantity}")
