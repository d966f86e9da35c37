"""How likely a data set's own responses are: what unlearning takes from the forget set, and leaves to the retain set.

- class_path: ResponseLikelihood
  init_args: {name: forget, split: train, limit: 200}
- class_path: ResponseLikelihood
  init_args: {name: retain, of: retain, split: train, limit: 200}
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import Any

from callbacks.probe import Probe, Quantity, Row, mean_of, metric_key
from unlearn_lightning.data import Encoded, Example, collate
from unlearn_lightning.inference.likelihood import mean_token


class ResponseLikelihood(Probe):
    """Log-likelihood and probability of the responses that the data holds, averaged over examples.

    Of a response of N tokens, its end of turn among them, the log-likelihood is `1/N sum_t log p(y_t | prompt, y_<t)` in nats, and the
    probability `exp` of that, the geometric mean over its tokens, in [0, 1] (TOFU's, Maini et al. 2024, arXiv:2401.06121, section 2.2.2).
    """

    probe_name = "response"
    quantities = {
        "log_lik": Quantity("log-likelihood", "nats/token", "higher"),
        "probability": Quantity("probability", "per token", "higher"),
    }
    by_length = True

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Scores the responses themselves."""
        batch = collate(encoded, pl_module.tokenizer.pad_token_id).to(pl_module.device)
        values = mean_token(pl_module.token_log_likelihood(batch), batch.response_mask).tolist()
        return [{"response": e.response, "mean_token_log_lik": v} for e, v in zip(examples, values, strict=True)]

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The means over examples, of the probability after `exp` and not before."""
        found = {"log_lik": mean_of(rows, "mean_token_log_lik"), "probability": fmean(math.exp(row["mean_token_log_lik"]) for row in rows)}
        return {metric_key(self.name, quantity): value for quantity, value in found.items()}
