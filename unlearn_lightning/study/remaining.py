"""How long a study still takes, from the runs that are finished: as long for each step as these took, and no guess before there are any.

remaining_text(remaining_seconds(runs, seconds))        # "about 12 min left"
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from unlearn_lightning.study.state import RunState

MINUTE, HOUR = 60, 3600


def remaining_seconds(runs: Sequence[RunState], seconds: Mapping[str, float]) -> float | None:
    """Wall-clock seconds until all runs are finished, with as many at a time as run now; None while nothing tells.

    A run that has not begun counts as the mean of the finished ones of its kind, or of all kinds where none of its own is finished. Of one
    that runs, the share of its steps that is left counts. Failed runs and those that wait for them are not counted.

    Args:
        runs: of the study.
        seconds: what each finished run took, by key.
    """
    took = {run.key: seconds[run.key] for run in runs if run.state == "finished" and run.key in seconds}
    if not took:
        return None
    kinds: dict[str, list[float]] = {}
    for run in runs:
        if run.key in took:
            kinds.setdefault(run.kind, []).append(took[run.key])
    means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    overall = sum(took.values()) / len(took)
    held_up = {run.key for run in runs if run.state == "failed"}
    left = 0.0
    for run in runs:
        if run.state in ("finished", "failed") or held_up & set(run.parents):
            # Parents come before children, so that what waits for a failed run is held up as a whole.
            held_up |= {run.key} if run.state != "finished" else set()
            continue
        share = 1 - run.step / run.steps if run.state == "running" and run.step is not None and run.steps else 1
        left += share * means.get(run.kind, overall)
    return left / max(1, sum(run.state == "running" for run in runs))


def remaining_text(left: float | None) -> str:
    """The time as people say it; empty where it is not known or over."""
    if not left:
        return ""
    if left < MINUTE:
        return "less than a minute left"
    return f"about {left / HOUR:.1f} h left" if left >= 2 * HOUR else f"about {left / MINUTE:.0f} min left"
