"""Seeds of a study that were measured before, in a store that is gone: their rows of the committed CSV, beside what is measured now."""

from collections.abc import Iterable

from scripts.study_results.measured import Row
from scripts.study_results.twins import TWIN


def with_earlier(now: tuple[dict[str, str], list[Row]], before: tuple[dict[str, str], list[Row]]) -> tuple[dict[str, str], list[Row]]:
    """All rows of both, and what made them.

    Raises:
        ValueError: a seed is in both, or the runs took another number of steps, so that they are not of one study.
    """
    (made_now, rows_now), (made_before, rows_before) = now, before
    earlier = [row for row in rows_before if not row.quantity.startswith(TWIN)]
    both = _seeds(rows_now) & _seeds(earlier)
    if both:
        raise ValueError(
            f"Seed {min(both)} was measured now and is among the earlier ones: give the study other seeds, or leave out --earlier."
        )
    if made_now["steps"] != made_before["steps"]:
        raise ValueError(
            f"The earlier runs unlearned in {made_before['steps']} steps, these in {made_now['steps']}: they are not seeds of one study."
        )
    of = f"seeds {_listed(_seeds(earlier))}: {made_before['runs']}; seeds {_listed(_seeds(rows_now))}: {made_now['runs']}"
    made_with = {name: _joined(made_before.get(name, ""), value) for name, value in made_now.items()} | {"runs": of}
    return made_with, [*earlier, *rows_now]


def _seeds(rows: Iterable[Row]) -> set[int]:
    return {row.seed for row in rows}


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


def _joined(before: str, now: str) -> str:
    return now if before in ("", now) else f"{before} and {now}"
