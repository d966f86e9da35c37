"""TOFU's truth ratio: how likely wrong answers are compared with the correct one.

- class_path: TruthRatio
  init_args:
    name: forget_truth
    data: {class_path: TofuStage, init_args: {source: data/tofu/forget10_perturbed.json, held_out_examples: 0}}
- class_path: TruthRatio
  init_args:
    name: world_facts_truth
    data: {class_path: TofuStage, init_args: {source: data/tofu/world_facts_perturbed.json, held_out_examples: 0}}
    correct_field: null
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from lightning.pytorch.utilities.rank_zero import rank_zero_info

from callbacks.compared import Compared
from callbacks.probe import Quantity, Row, metric_key
from unlearn_lightning.data import Encoded, Example, StageData
from unlearn_lightning.inference import truth_ratio as formulas
from unlearn_lightning.sources.quoting import listed, quoted
from unlearn_lightning.sources.readers import SourceRecord


class TruthRatio(Compared):
    """Truth ratio r = mean likelihood of the wrong answers / likelihood of the correct one, and its scores, averaged over examples.

    Maini et al. 2024, arXiv:2401.06121, section 2.2; a likelihood is exp of the mean log-likelihood per token, end of turn included.
    `forget_score` is min(r, 1/r), `utility_score` max(0, 1 - r), and `prob_mean` 1 / (1 + r). `probability` is the correct answer's, and
    `normalised_probability` its share of the sum over it and the wrong answers. With `retrained`, `forget_quality` is the p-value of the
    two-sided two-sample Kolmogorov-Smirnov test between both models' truth ratios.

    Args:
        data: the stage with the questions; null for the one that `of` names.
        limit: how many questions, from the first.
        chunk_size: questions handed out to a process at a time.
        correct_field: the records' field with the correct answer; null for the response itself, as TOFU does for real authors and
            world facts.
        wrong_field: the records' field with the wrong answer, or a list of them.
        variant: which of them the records hold as `truth_ratio`: `geometric` (OpenUnlearning), `arithmetic` (TOFU's forget score and model
            utility), `reciprocal` (TOFU's forget quality) or `prob_mean` (OpenUnlearning's option). The scores are of r, whose mean over
            wrong answers is geometric but for `arithmetic`.
    """

    probe_name = "truth"
    quantities = {
        "forget_score": Quantity("forget score of the truth ratio", "", "lower"),
        "utility_score": Quantity("utility score of the truth ratio", "", "higher"),
        "prob_mean": Quantity("correct answer's share, against the mean wrong one", "share", "higher"),
        "probability": Quantity("probability of the correct answer", "per token", "higher"),
        "normalised_probability": Quantity("correct answer's share of all answers", "share", "higher"),
        "forget_quality": Quantity("forget quality (KS p-value)", "", "higher"),
        "log10_forget_quality": Quantity("forget quality (log10 of p)", "", "higher"),
        "forget_quality_n": Quantity("truth ratios in the KS test", "examples"),
    }

    def __init__(
        self,
        data: StageData | None = None,
        *,
        limit: int | None = None,
        every_n_steps: int = 0,
        chunk_size: int = 4,
        correct_field: str | None = "paraphrased_answer",
        wrong_field: str = "perturbed_answer",
        variant: formulas.Variant = "geometric",
        **kwargs: Any,
    ) -> None:
        super().__init__(data, limit=limit, every_n_steps=every_n_steps, chunk_size=chunk_size, **kwargs)
        self.correct_field, self.wrong_field, self.variant = correct_field, wrong_field, variant
        self._answers: dict[str, list[Encoded]] = {}

    def check(self, pl_module: Any) -> None:
        """Reads and encodes the answers.

        Raises:
            ValueError: a record has no such answers.
        """
        super().check(pl_module)
        texts = {example.id: texts for example, texts in zip(self.examples, self._texts(), strict=True)}
        parts = [replace(example, response=text) for example in self.examples for text in texts[example.id]]
        for encoded in self.encoder.encode([replace(part, alternative=None) for part in parts]):
            self._answers.setdefault(encoded.id, []).append(encoded)
        cut = sum(answer.truncated for answers in self._answers.values() for answer in answers)
        if cut:
            rank_zero_info(f"{self.name}: {cut} of {len(parts)} answers were cut at max_length {self.data.max_length}.")

    def _texts(self) -> Iterator[list[str]]:
        """Of each example the correct answer and the wrong ones, as texts."""
        assert self.split is not None
        rows = self.data.rows(self.split)
        places = {f"{self.data.stage_name}-{self.split}-{i:05d}": i for i in range(len(rows))}
        for example in self.examples:
            record = rows[places[example.id]] if example.id in places else None
            if record is None:
                raise ValueError(f"TruthRatio: {type(self.data).__name__} has no record for each example; use ChatStage or TofuStage.")
            correct = example.response if self.correct_field is None else self._answers_in(record, self.correct_field)[0]
            yield [correct, *self._answers_in(record, self.wrong_field)]

    def _answers_in(self, record: SourceRecord, field: str) -> list[str]:
        found = record.fields.get(field)
        given = found if isinstance(found, list) else [found]
        answers = [answer for answer in given if isinstance(answer, str) and answer.strip()]
        if given and len(answers) == len(given):
            return [self.data.response(answer) for answer in answers]
        what = f"is {quoted(found)}" if field in record.fields else "is missing"
        own = " Null takes the response itself, as TOFU does for real authors and world facts." if field == self.correct_field else ""
        name = "correct_field" if field == self.correct_field else "wrong_field"
        raise ValueError(
            f"{record.where}: field {quoted(field)} {what}; TruthRatio expects an answer or a list of answers. The record has the fields "
            f"{listed(sorted(record.fields))}. Set {name} of the probe {self.name} to the right one.{own}"
        )

    def predict(self, pl_module: Any, examples: Sequence[Example], encoded: Sequence[Encoded], seed: int) -> list[Row]:
        """Scores the correct and the wrong answers to each question."""
        return [self._row(_mean_log_lik(pl_module, self._answers[example.id])) for example in examples]

    def _row(self, values: Sequence[float]) -> Row:
        """One example's row; the ratio itself is null in a record where it is no finite number, and its logarithm is what is compared."""
        correct, *wrong = values
        log_r = formulas.log_truth_ratio(correct, wrong, "arithmetic" if self.variant == "arithmetic" else "geometric")
        ratio = formulas.truth_ratio(correct, wrong, self.variant)
        return {"correct_log_lik": correct, "wrong_log_lik": wrong, "truth_ratio": ratio, "log_truth_ratio": log_r}

    def metrics(self, rows: list[Row]) -> dict[str, float]:
        """The means over examples, and forget quality where a retrained model is named."""
        ratios = [row["log_truth_ratio"] for row in rows]
        found = {
            "forget_score": fmean(map(formulas.forget_score, ratios)),
            "utility_score": fmean(map(formulas.utility_score, ratios)),
            "prob_mean": fmean(map(formulas.true_share, ratios)),
            "probability": fmean(math.exp(row["correct_log_lik"]) for row in rows),
            "normalised_probability": fmean(formulas.normalised_probability(row["correct_log_lik"], row["wrong_log_lik"]) for row in rows),
        }
        theirs = self.retrained_rows()
        if theirs is not None:
            found |= formulas.quality_metrics(ratios, theirs)
        return {metric_key(self.name, quantity): value for quantity, value in found.items()}


def _mean_log_lik(pl_module: Any, answers: Sequence[Encoded]) -> list[float]:
    """Mean log-likelihood per token of each answer; answers to one and the same prompt share its computation."""
    together = all(answer.prompt_ids == answers[0].prompt_ids for answer in answers)
    found: list[float] = []
    for part in [answers] if together else [[answer] for answer in answers]:
        scores = pl_module.score_candidates([part[0].prompt_ids], [answer.response_ids for answer in part])
        found += (scores.token_log_lik[0].sum(-1) / scores.mask.sum(-1)).tolist()
    return found
