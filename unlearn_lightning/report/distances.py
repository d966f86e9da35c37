"""How far unlearning runs lie from the retrained model and from each other, at every measured step, in squared nats.

distances = Distances(study)
distances.to_retrained(run)                      # {0: 3.1, 2: 4.0, ..., 16: 25.9}
distances.between_paths("NPO", paths[0], paths[3])  # one curve per seed
"""

from functools import cache

from unlearn_lightning.inference.divergence import squared_distance
from unlearn_lightning.records.study_data import RunRecord, Study, TrainingPath, Vectors


class Distances:
    """Every RE distance of a study. `problems` collects, in words, the pairs that could not be compared."""

    def __init__(self, study: Study):
        self.study = study
        self.problems: list[str] = []
        self.to_retrained = cache(self._to_retrained)
        self.in_seed = cache(self._in_seed)
        self.between_paths = cache(self._between_paths)

    def _to_retrained(self, run: RunRecord) -> dict[int, float]:
        """Distance of `run` at each measured step to the retrained model of its seed and path, as that model was in its last record."""
        retrained = self.study.retrained(run.seed, run.stages)
        records = retrained.records("divergence") if retrained else {}
        if retrained is None or not records:
            return {}
        target = retrained.vectors(max(records))
        return self._curve(run, dict.fromkeys(run.records("divergence"), target), f"{run.name} and the retrained model")

    def _between_paths(self, objective: str, first: TrainingPath, second: TrainingPath) -> list[dict[int, float]]:
        """Distance between two paths under one objective at the steps both measured: one curve per seed that has both."""
        curves = (self.in_seed(objective, first, second, run.seed) for run in self.study.unlearned(objective, first))
        return [curve for curve in curves if curve]

    def _in_seed(self, objective: str, first: TrainingPath, second: TrainingPath, seed: int) -> dict[int, float]:
        """Distance between two paths in one seed at the steps both measured; empty where one is missing."""
        pair = [run for path in (first, second) for run in self.study.unlearned(objective, path) if run.seed == seed]
        if len(pair) < 2:
            return {}
        run, other = pair
        steps = run.records("divergence").keys() & other.records("divergence").keys()
        return self._curve(run, {step: other.vectors(step) for step in sorted(steps)}, f"{run.name} and {other.name}")

    def _curve(self, run: RunRecord, others: dict[int, Vectors], pair: str) -> dict[int, float]:
        try:
            # A prediction that is no finite number is at no distance from anything (nan); its run names it.
            return {step: squared_distance(run.vectors(step), other) for step, other in others.items()}
        except (ValueError, OverflowError) as error:  # One pair that cannot be compared must not cost the reader the whole report.
            self.problems.append(f"No distance between {pair}: {error}")
            return {}
