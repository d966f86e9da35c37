"""The time that a study still takes, by hand."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from unlearn_lightning.study.local import settled_line
from unlearn_lightning.study.remaining import remaining_seconds, remaining_text
from unlearn_lightning.study.state import RunState


def state(key, kind, what, parents=(), step=None, steps=None):
    return RunState(key, key, kind, Path(key), tuple(parents), what, step, steps)


RUNS = [
    state("a", "stage", "finished"),
    state("b", "stage", "running", "a", 5, 20),
    state("c", "stage", "waiting", "b"),
    state("d", "unlearn", "running", "a", 1, 4),
    state("e", "unlearn", "failed", "a"),
    state("f", "unlearn", "waiting", "e"),
]


def test_nothing_is_known_before_a_run_is_finished():
    assert remaining_seconds(RUNS, {}) is None
    assert remaining_text(None) == ""


def test_runs_that_are_left_count_by_their_kind_and_two_run_at_a_time():
    # b has 3/4 of 100 s left, c 100 s, d 3/4 of the only mean there is; what failed and what waits for it never runs.
    assert remaining_seconds(RUNS, {"a": 100.0}) == pytest.approx((75 + 100 + 75) / 2)
    finished = [*RUNS[:3], state("d", "unlearn", "finished"), state("g", "unlearn", "ready")]
    assert remaining_seconds(finished, {"a": 100.0, "d": 10.0}) == pytest.approx(75 + 100 + 10)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, ""), (59, "less than a minute left"), (600, "about 10 min left"), (9000, "about 2.5 h left")]
)
def test_the_time_in_words(seconds, text):
    assert remaining_text(seconds) == text


@pytest.mark.parametrize(
    ("done", "failed", "said"),
    [
        # Two are left: b, and c behind it; f waits for a run that failed.
        (("a", "d"), {"e": "no"}, "d finished (2 of 6 runs, about 2 min left)"),
        (("a", "b", "c"), {"d": "out of memory", "e": "no"}, "d failed: out of memory (3 of 6 runs)"),
        (("a", "b", "c", "d", "e", "f"), {}, "d finished (6 of 6 runs)"),
    ],
)
def test_a_log_says_how_many_runs_are_left_and_how_long_they_take(done, failed, said):
    runs = [SimpleNamespace(key=run.key, name=run.name, parents=run.parents) for run in RUNS]

    def given_up(run):
        return bool({run.key, *run.parents} & failed.keys())

    work = SimpleNamespace(runs=runs, done=set(done), failed=failed, given_up=given_up)
    assert settled_line(work, runs[3], 60.0) == said
