"""The paper's measure of whether knowledge stays that should stay: log-likelihood of its responses, named by their stage.

- class_path: RetainLikelihood
  init_args: {data: {class_path: TofuStage}, split: train, limit: 80, every_n_steps: 2}
"""

from __future__ import annotations

from collections.abc import Mapping

from callbacks.probe import Quantity, Row, mean_of, metric_key
from callbacks.response_likelihood import ResponseLikelihood


class RetainLikelihood(ResponseLikelihood):
    """Mean per-token log-likelihood (nats) of the probe's responses, averaged over examples; metric `<name>/<stage>_log_lik`.

    Retention is 1 - |change| of it, which the paper calls utility on TOFU answers; TOFU's own model utility is another quantity.
    """

    probe_name = "retain"

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
