"""Whether runs that are compared were computed alike: with the same speed switches, on the same kind of processor.

mixtures(study)     # ["The unlearning runs were not all computed alike: shortcuts is False in 3 runs and True in 9 runs. ..."]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from unlearn_lightning.report.study_data import RunRecord, Study

WARNING = "Each way is right to rounding, but many steps of training may make such a difference large."


def mixtures(study: Study) -> list[str]:
    """One sentence for each group of compared runs that differ in what run.json calls `computed_with`; none where all are alike.

    All unlearning runs are compared with each other, and training runs with those of the same stage.
    """
    groups: dict[str, list[RunRecord]] = {}
    for run in study.runs:
        name = "unlearning runs" if run.kind == "unlearn" else f"training runs of {(run.stages or ('the base',))[-1]}"
        groups.setdefault(name, []).append(run)
    return [
        f"The {name} were not all computed alike: {'; '.join(found)}. {WARNING}" for name, runs in groups.items() if (found := _mixed(runs))
    ]


def _mixed(runs: Iterable[RunRecord]) -> list[str]:
    seen: dict[str, Counter[str]] = {}
    for run in runs:
        for setting, value in (run.info.get("computed_with") or {}).items():
            seen.setdefault(setting, Counter())[str(value)] += 1
    return [
        f"{setting} is {' and '.join(f'{value} in {n} run' + 's' * (n > 1) for value, n in sorted(found.items()))}"
        for setting, found in seen.items()
        if len(found) > 1
    ]
