"""The forget set unlearned part by part in every order: shared beginnings once, parts that are the whole, and the spread by hand."""

import math
import os
import re
from pathlib import Path

import pytest
import yaml
from study_runs import fit
from test_backbone import saved_base
from test_report_study_data import StudyWriter
from test_study import config_of, small, tree

from unlearn_lightning.data import ChatStage
from unlearn_lightning.main import main
from unlearn_lightning.records import is_finished, read_json, record_path
from unlearn_lightning.report.report import build
from unlearn_lightning.study.requests import orders, parts_of
from unlearn_lightning.study.run_spec import read_spec


@pytest.mark.parametrize(("count", "runs"), [(2, 4), (3, 15), (4, 64)])
def test_every_beginning_of_every_order_is_there_once_after_its_own_beginning(count, runs):
    found = orders(count)
    # k + k (k-1) + ... + k!: of 3 parts 3 + 6 + 6.
    assert len(found) == len(set(found)) == runs
    assert sum(len(order) == count for order in found) == math.factorial(count)
    assert all(order[:-1] in found[:i] for i, order in enumerate(found) if len(order) > 1)


def test_the_parts_are_the_forget_set_in_its_own_order(questions, tmp_path):
    settings = {"source": questions, "held_out_examples": 0, "prompt_template": "Say: {prompt}", "max_length": 77, "batch_size": 4}
    stage = ChatStage(**settings)
    parts = parts_of(stage, {"init_args": settings}, 3, tmp_path)
    texts = [[(e.prompt, e.response) for e in ChatStage(**part["init_args"]).examples("train")] for part in parts]
    assert [len(part) for part in texts] == [6, 6, 7]
    whole = [(e.prompt, e.response) for e in (stage.example("", row) for row in stage.source_rows())]
    assert [sorted(part) for part in texts] == [sorted(whole[:6]), sorted(whole[6:12]), sorted(whole[12:])]
    assert {(part["init_args"]["max_length"], part["init_args"]["batch_size"]) for part in parts} == {(77, 4)}
    assert parts_of(stage, {"init_args": settings}, 3, tmp_path) == parts
    with pytest.raises(ValueError, match="it cannot be cut into so many parts"):
        parts_of(stage, {"init_args": settings}, 20, tmp_path)


def test_asking_for_requests_changes_no_run_that_was_there(corpus, questions, tmp_path):
    data = {"stages": {"safety": {"data": {"init_args": {"held_out_source": None, "held_out_examples": 0}}}}}
    without, more = (tree(small(corpus, questions, **data, **asked), tmp_path) for asked in ({}, {"requests": 2}))
    assert {run.key for run in without} < {run.key for run in more}
    added = [run for run in more if run.kind == "request"]
    # Two parts are four runs for each of two objectives on three paths.
    assert len(added) == len({run.key for run in added}) == 4 * 2 * 3
    assert len(more) == len(without) + len(added)
    for value in (1, 6):
        with pytest.raises(ValueError, match="`requests` is the number of parts of the forget set, 2 to 5"):
            config_of(small(corpus, questions, requests=value))


def test_a_later_request_starts_from_what_the_earlier_ones_left(make_backbone, corpus, questions, tmp_path):
    base = saved_base(make_backbone, tmp_path / "base")
    data = {"stages": {"safety": {"data": {"init_args": {"held_out_source": None, "held_out_examples": 0}}}}}
    changes = {**data, "requests": 2, "order": [], "probes": {}, "stage_probes": [], "retrained": False, "base": None}
    study = small(corpus, questions, **changes)
    study = {**study, "backbone": {"model": base, "lora": {"rank": 2, "alpha": 4}}, "objectives": {"ga": study["objectives"]["ga"]}}
    study["probes"] = {}
    runs = {run.name: run for run in tree(study, tmp_path / "store")}
    for run in runs.values():
        fit(run.config)
        assert is_finished(run.folder)
    first, both = (runs[f"seed0/p1/ga/{order}"] for order in ("2", "2-1"))
    assert both.parents == [first]
    # The second one begins where the first ended, for each part: the stack of adapters is the model that the first one left.
    for part in ("request1", "request2"):
        end, start = (
            read_json(record_path(run.folder, part, step))["metrics"][f"{part}/log_lik"]
            for run, step in ((first, read_json(first.folder / "run.json")["steps"]), (both, 0))
        )
        assert start == pytest.approx(end, abs=1e-5)
    assert len(both.config["model"]["init_args"]["backbone"]["adapter"]) == 2


def test_the_report_gives_the_spread_over_orders_and_the_memory_by_place(tmp_path):
    writer = StudyWriter(tmp_path)
    left = {(1, 2): (-3.0, -5.0), (2, 1): (-4.0, -1.5)}
    for seed in (1, 2):
        for order, values in {**left, (1,): (-9.0, -9.0)}.items():
            tags = {"seed": seed, "path": ["safety"], "p": 1, "objective": "ga", "requests": list(order)}
            folder = writer.run(f"seed{seed}/p1/ga/{'-'.join(map(str, order))}", "request", tags)
            for part, value in enumerate(values, 1):
                writer.record(folder, f"request{part}", 4, {f"request{part}/log_lik": value + seed}, [])
    made = build(writer.write())
    tables = {table.name: table for section in made.sections for table in section.tables}
    spread = {row.cells[2]: (row.cells[4].mean, row.cells[5].mean, row.cells[6].mean, row.cells[7]) for row in tables["requests"].rows}
    assert spread == {"request1/log_lik": (-2.5, -1.5, 1.0, 2), "request2/log_lik": (-3.5, 0.0, 3.5, 2)}
    by_place = {row.cells[3]: row.cells[4].mean for row in tables["requests_by_place"].rows}
    # First: part 1 in the order (1, 2) and part 2 in (2, 1): (-3 - 1.5) / 2, and 1.5 for the seeds; last: (-5 - 4) / 2.
    assert by_place == {1: pytest.approx(-0.75), 2: pytest.approx(-3.0)}


def test_requests_and_quantised_results_go_through_slurm(corpus, questions, tmp_path, monkeypatch, capsys):
    """The plan shows every order, and each job waits for the one that unlearned the parts before; sbatch only numbers the jobs here."""
    monkeypatch.chdir(tmp_path)
    data = {"stages": {"safety": {"data": {"init_args": {"held_out_source": None, "held_out_examples": 0}}}}}
    study = small(corpus, questions, **data, requests=2, order=[], positions=[1], retrained=False, quantised=["int8"])
    study["objectives"] = {"ga": study["objectives"]["ga"]}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(study))
    line = ["study", "small.yaml", "--launcher", "slurm"]
    assert main([*line, "--plan"]) == 0, capsys.readouterr().err
    planned = capsys.readouterr().out
    orders_of = {order: f"seed0/p1/ga/{order}" for order in ("1", "2", "1-2", "2-1")}
    assert all(f"runs/small/plan/{name.replace('/', '-')}.yaml" in " ".join(planned.split()) for name in orders_of.values())

    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "squeue").write_text("#!/bin/sh\n")
    (commands / "sbatch").write_text(f'#!/bin/sh\necho "$2" >> {tmp_path}/submitted\nwc -l < {tmp_path}/submitted\n')
    for command in ("squeue", "sbatch"):
        (commands / command).chmod(0o755)
    monkeypatch.setenv("PATH", f"{commands}:{os.environ['PATH']}")
    assert main(line) == 0, capsys.readouterr().err
    assert "Submitted: 7 runs." in " ".join(capsys.readouterr().out.split())
    scripts = [Path(file).read_text() for file in (tmp_path / "submitted").read_text().split()]

    def job(name):
        """The number of the job that executes a run, and its script."""
        return next((number, text) for number, text in enumerate(scripts, 1) if f"jobs/{name.replace('/', '-')}.json" in text)

    for order, before in (("1", "seed0/safety"), ("2", "seed0/safety"), ("1-2", orders_of["1"]), ("2-1", orders_of["2"])):
        number, text = job(orders_of[order])
        (waits,) = re.findall(r"--dependency=afterok:(\d+)_", text)
        assert int(waits) == job(before)[0] < number
    specs = {name: read_spec(Path("runs/small/jobs") / f"{name.replace('/', '-')}.json") for name in ("seed0/p1/ga", orders_of["1-2"])}
    assert [spec.quantised for spec in specs.values()] == [("int8",), ()], "results of all parts at once are measured again"
    assert specs[orders_of["1-2"]].kind == "request"
