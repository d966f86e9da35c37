"""Is forgetting deep? Log-likelihoods of several responses to each prompt: the unlearned one, its rewording, a refusal.

- class_path: ResponseFamilies
  init_args: {data: {class_path: FamilyStage}, every_n_steps: 5}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from callbacks.probe import Probe, Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, FamilyStage

# Names and fields of the paper's three responses (arXiv:2510.16629, section 4.3): a refusal, a compliance, and the same in other words.
FAMILIES = {"R": "refusal", "C": "compliance", "U": "reworded"}


class ResponseFamilies(Probe):
    """Mean over prompts of each response's log-likelihood, summed over its tokens with the end of turn (nats); `<name>/R_log_lik`, ...

    All responses to a prompt share its key-value cache.

    Args:
        data: a FamilyStage; null for the one that is trained on.
        limit: how many prompts, from the first.
        chunk_size: prompts handed out to a process at once.
        families: name -> the field that holds such responses.
    """

    probe_name = "families"

    def __init__(
        self,
        data: FamilyStage | None = None,
        *,
        split: Literal["train", "held_out"] = "train",
        limit: int | None = 40,
        every_n_steps: int = 1,
        chunk_size: int = 4,
        families: Mapping[str, str] = FAMILIES,
        **kwargs: Any,
    ) -> None:
        super().__init__(data, split=split, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        if len(families) < 2 or len(set(families.values())) < len(families):
            raise ValueError(f"ResponseFamilies: `families` names two or more different fields; got {dict(families)}.")
        self.families = dict(families)
        self._responses: dict[str, list[list[int]]] = {}

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        """Also encodes every response of each prompt.

        Raises:
            TypeError: the data holds one response to a prompt only.
            ValueError: a record lacks a response, or max_length cuts one: its log-likelihood would not be whole.
        """
        super().setup(trainer, pl_module, stage)
        if not isinstance(self.data, FamilyStage):
            raise TypeError(f"ResponseFamilies measures several responses to a prompt: `data` must be a FamilyStage, not {self.data}.")
        texts, cut = self.data.family(self.split, self.families), 0
        for example in self.examples:
            encoded = self.encoder.encode([replace(example, response=text) for text in texts[example.id].values()])
            self._responses[example.id] = [one.response_ids for one in encoded]
            cut += sum(one.truncated for one in encoded)
        if cut:
            raise ValueError(f"max_length {self.data.max_length} cuts {cut} responses that are measured: raise it.")

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Scores all responses to each prompt."""
        return [self._row(pl_module.score_candidates([e.prompt_ids], self._responses[e.id])) for e in encoded]

    def _row(self, scores: Any) -> Row:
        log_lik, tokens = scores.token_log_lik[0].sum(-1).tolist(), scores.mask.sum(-1).tolist()
        return {"log_lik": dict(zip(self.families, log_lik, strict=True)), "tokens": dict(zip(self.families, tokens, strict=True))}

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """Means over prompts."""
        return {self._key(name, "log_lik"): sum(row["log_lik"][name] for row in rows) / len(rows) for name in self.families}

    def since_start(self, metrics: dict[str, float]) -> dict[str, float]:
        """Decrease since the first measurement: positive when forgotten."""
        keys = {name: self._key(name, "log_lik") for name in self.families}
        return {self._key(name, "drop"): self.start_value(key, metrics) - metrics[key] for name, key in keys.items()}

    def describe(self, metrics: Mapping[str, float]) -> dict[str, Quantity]:
        """Each family's log-likelihood and its drop, called by the field that holds the responses."""
        found = {}
        for family, field in self.families.items():
            found[self._key(family, "log_lik")] = Quantity(f"log-likelihood of the {field} ({family})", "nats", "higher")
            found[self._key(family, "drop")] = Quantity(f"drop of the {field} ({family})", "nats", "lower")
        return found

    def _key(self, family: str, quantity: str) -> str:
        return metric_key(self.name, f"{family}_{quantity}")
