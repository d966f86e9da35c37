"""What is missing from the numbers: runs that failed, were not finished or not started."""

from collections.abc import Iterable

from unlearn_lightning.records.study_data import Study
from unlearn_lightning.report.section import Section

LISTED = 6


class Missing(Section):
    """Has no place of its own on the page, which lists all problems at its top."""

    place = 0
    heading = "What is missing"

    def problems(self) -> Iterable[str]:
        against = self.material.against
        others = [f"In {against.study.name}: {problem}" for problem in _missing(against.study)] if against else []
        return [*_missing(self.study), *others]


def _missing(study: Study) -> list[str]:
    problems = [f"{run.name} failed: {run.info.get('error') or 'no message'}" for run in study.unfinished if run.status == "failed"]
    problems += [f"{run.name} is left out: {run.info['error']}" for run in study.unfinished if run.status == "unreadable"]
    problems += [f"{run.name} is not finished" for run in study.unfinished if run.status in ("running", "stopped")]
    waiting = [run.name for run in study.unfinished if run.status not in ("failed", "running", "stopped", "unreadable")]
    if waiting:
        listed = waiting if len(waiting) <= LISTED else waiting[: LISTED - 1]
        more = f" and {len(waiting) - len(listed)} more" if len(waiting) > len(listed) else ""
        problems.append(f"Not run: {', '.join(listed)}{more}")
    return problems
