"""Large studies and long runs: how often the slow work is done, and that the fast ways give what the slow ones give."""

import copy
import csv
import json
import resource

import pytest
import yaml
from test_study import config_of, small

from unlearn_lightning.cli import resolver as resolving
from unlearn_lightning.cli.resolver import Resolver
from unlearn_lightning.runs.metrics_file import MetricsFile
from unlearn_lightning.study.plan_commands import Sections, planned_config
from unlearn_lightning.study.study_config import merged
from unlearn_lightning.study.tree import plan

# --- a study's plan ----------------------------------------------------------------------------------------------------------


class SlowResolver(Resolver):
    """Has jsonargparse work out every configuration."""

    def _resolved(self, shape, variables):
        return self._parse(copy.deepcopy(shape))[0]


@pytest.fixture
def grid(corpus, questions):
    """Two seeds, three paths and four learning rates by betas, one of which is a whole number."""
    objectives = {
        f"npo-{lr}-{beta}": {"model": {"class_path": "NPO", "init_args": {"beta": beta, "optimizer": {"init_args": {"lr": lr}}}}}
        for lr in (1e-3, 2.5e-5) for beta in (0.5, 1.0)
    }  # fmt: skip
    return small(corpus, questions, objectives={"ga": {"model": {"class_path": "GradientAscent"}}, "npo": {}} | objectives, seeds=[0, 1])


@pytest.fixture
def fresh(monkeypatch):
    """Nothing was worked out before."""
    monkeypatch.setattr(resolving, "_RESOLVED", {})
    monkeypatch.setattr(resolving, "_FORMS", {})


def test_a_grid_is_worked_out_once_and_has_the_keys_of_the_slow_way(grid, tmp_path, fresh):
    grid["objectives"].pop("npo")
    fast, slow = Resolver(), SlowResolver()
    runs = plan(config_of(grid), tmp_path, fast.resolve)
    # Base, stages, gradient ascent and NPO; a model of each of NPO's variants was made, to see whether it takes its numbers.
    assert fast.parsed <= 6
    assert fast.tried == fast.parsed + 3
    resolving._RESOLVED.clear()
    expected = plan(config_of(grid), tmp_path, slow.resolve)
    assert slow.parsed == fast.tried
    assert [run.key for run in runs] == [run.key for run in expected]
    # As text, so that 1 is not 1.0.
    assert json.dumps([run.config for run in runs]) == json.dumps([run.config for run in expected])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"beta": -1.5}, "beta"),
        ({"optimizer": {"init_args": {"lr": -1e-3}}}, "model.optimizer"),
        ({"lr_scheduler": {"class_path": "WarmupStableDecay", "init_args": {"warmup": 7.5}}}, "warmup"),
    ],
)
def test_a_number_that_a_class_refuses_is_refused_in_a_variant_too(change, message, grid, tmp_path, fresh):
    good = {"beta": 0.5, "lr_scheduler": {"class_path": "WarmupStableDecay", "init_args": {"warmup": 0.1}}}
    objectives = {
        name: {"model": {"class_path": "NPO", "init_args": merged(good, more)}} for name, more in {"good": {}, "bad": change}.items()
    }
    with pytest.raises(ValueError, match=message):
        plan(config_of({**grid, "objectives": objectives, "seeds": [0]}), tmp_path, Resolver().resolve)


def test_written_configurations_are_those_of_the_plan(grid, tmp_path):
    grid["objectives"].pop("npo")
    runs, sections = plan(config_of({**grid, "seeds": [0]}), tmp_path, Resolver().resolve), Sections()
    for run in runs:
        before = json.dumps(run.config)
        assert yaml.safe_load(sections.text(planned_config(run, runs))) == planned_config(run, runs)
        assert json.dumps(run.config) == before


# --- metrics.csv -------------------------------------------------------------------------------------------------------------


def test_a_long_metrics_file_is_taken_back_without_being_read_into_memory(tmp_path):
    path = tmp_path / "metrics.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["a,b", "step"])
        writer.writerows([f'{i}\n"x"', i] for i in range(60_000))
    expected = path.read_bytes()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = MetricsFile(path)
    assert found.written == 60_000
    found.keep(59_990)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 5_000, "KB: sixty thousand rows take thirty thousand"
    assert expected.startswith(path.read_bytes())
    assert (found.written, found.metrics_keys) == (59_990, ["a,b", "step"])
    found.log_metrics({"c": 1.0}, step=7)
    found.save()
    assert found.written == 59_991
    last = list(found.rows())[-2:]
    assert last == [{"a,b": '59989\n"x"', "c": "", "step": "59989"}, {"a,b": "", "c": "1.0", "step": "7"}]


@pytest.mark.parametrize("count", [0, 1, 2])
def test_keeping_rows_gives_what_reading_them_all_gave(count, tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,step\r\n1,0\r\n2,1\r\n3,")
    found = MetricsFile(path)
    rows = found.read()[:count]
    found.keep(count)
    assert found.read() == rows
    assert path.is_file() == bool(rows)


def test_fewer_rows_than_are_to_be_kept_are_refused(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("a,step\r\n1,0\r\n2,1\r\n")
    with pytest.raises(ValueError, match=r"has 2 rows where the checkpoint says 5"):
        MetricsFile(path).keep(5)
