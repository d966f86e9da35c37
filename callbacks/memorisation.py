"""How much of a response the model would say by itself: exact memorisation and extraction strength.

- class_path: Memorisation
  init_args: {name: forget_memory, split: train, limit: 100, every_n_steps: 0}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from callbacks.probe import Probe, Quantity, Row, mean_of, metric_key
from unlearn_lightning.data import Encoded, Example


def exact_memorisation(said: Sequence[bool]) -> float:
    """Share of tokens that are the likeliest ones where all tokens before are given; Tirumala et al. 2022, arXiv:2205.10770.

    Args: said: of each of N > 0 response tokens, whether it is the likeliest.   Returns: between 0 and 1.
    """
    return sum(said) / len(said)


def extraction_strength(said: Sequence[bool]) -> float:
    """1 - k/N, k being the shortest prefix after which greedy decoding says the rest; Carlini et al. 2021, arXiv:2012.07805.

    Teacher forcing tells it, as the rest must be said as a whole. 0 where the last token is not said: OpenUnlearning gives 1/N there.

    Args: said: of each of N > 0 response tokens, whether it is the likeliest.   Returns: between 0 and 1; 1 where all are said.
    """
    lost = max((place for place, token in enumerate(said) if not token), default=-1)
    return 1 - (lost + 1) / len(said)


class Memorisation(Probe):
    """Exact memorisation and extraction strength of the responses that the data holds, averaged over examples.

    A token whose logit equals the largest other one counts as not said. OpenUnlearning leaves the end of turn out of both.

    Args:
        with_end: whether the response's last token, its end of turn, counts; a response of one token is then its end alone.
    """

    probe_name = "memorisation"
    quantities = {
        "exact": Quantity("exact memorisation", "share", "higher"),
        "extraction": Quantity("extraction strength", "share", "higher"),
    }

    def __init__(self, *args: Any, with_end: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.with_end = with_end

    def check(self, pl_module: Any) -> None:
        """Refuses responses of which nothing would be left.

        Raises:
            ValueError: a response is its end of turn alone, which does not count.
        """
        short = [] if self.with_end else [one.id for one in self.encoded if len(one.response_ids) < 2]
        if short:
            raise ValueError(f"Probe {self.name}: with_end is false, and {len(short)} responses have one token only, such as {short[0]}.")

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Looks which response tokens are the likeliest."""
        return [self._row(pl_module.score_candidates([one.prompt_ids], [one.response_ids]).token_margin[0, 0].tolist()) for one in encoded]

    def _row(self, margins: list[float]) -> Row:
        said = [margin > 0 for margin in margins][: None if self.with_end else -1]
        return {"tokens": len(said), "exact_memorisation": exact_memorisation(said), "extraction_strength": extraction_strength(said)}

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The means over examples."""
        found = {"exact": mean_of(rows, "exact_memorisation"), "extraction": mean_of(rows, "extraction_strength")}
        return {metric_key(self.name, quantity): value for quantity, value in found.items()}
