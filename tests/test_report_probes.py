"""The report of runs that are no study: every probe's metrics by their own words, answers side by side, single runs and grids."""

import csv
import json
import shutil
from statistics import fmean

import pytest
from study_runs import fit, settings

from callbacks.probe import Probe, Quantity, metric_key
from unlearn_lightning.report.command import report
from unlearn_lightning.report.report import build


class Loudness(Probe):
    """A probe that the package does not know."""

    probe_name = "loudness"
    answer_field = "shout"
    quantities = {"level": Quantity("loudness of <b>answers</b>", "dB|A", "lower")}

    def predict(self, pl_module, examples, encoded, seed):
        step = pl_module.trainer.global_step
        return [{"shout": f"{e.prompt} <script>alert({step})</script>", "response": e.response, "level": 10.0 - step} for e in examples]

    def metrics(self, rows):
        return {metric_key(self.name, "level"): fmean(row["level"] for row in rows), metric_key(self.name, "undeclared_count"): 3.0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A grid of two rates, whose folders do not sort by size, measured by the probe above."""
    folder = tmp_path_factory.mktemp("grid")
    corpus, questions = folder / "texts.jsonl", folder / "questions.jsonl"
    corpus.write_text(json.dumps({"text": "Who wrote the blue book? Ann wrote it in 1987."}))
    questions.write_text("\n".join(json.dumps({"prompt": f"Who wrote book {i}?", "response": f"Ann {i}."}) for i in range(4)))
    for rate in (1e-3, 1e-5):
        optimizer = {"class_path": "torch.optim.AdamW", "init_args": {"lr": rate}}
        config = settings(
            str(corpus), str(questions), folder / "runs" / f"rate{rate}", cls="GradientAscent",
            model={"init_args": {"optimizer": optimizer}}, trainer={"max_steps": 2, "logger": False},
        )  # fmt: skip
        config["trainer"]["callbacks"] = [{"class_path": "test_report_probes.Loudness", "init_args": {"every_n_steps": 1}}]
        fit(config)
    return folder / "runs"


@pytest.fixture
def without_figures(monkeypatch):
    monkeypatch.setattr("unlearn_lightning.report.report.save_figures", lambda *_: [])


def shown(page):
    return page.split('<script type="application/json"')[0]


def test_a_new_probe_of_a_single_run_is_everywhere_with_its_unit_and_its_texts_stay_texts(runs, capsys):
    run = runs / "rate0.001"
    assert report([str(run)]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for piece in ("loudness of <b>answers</b>", "10 → 8", "−2", "dB|A", "undeclared count", "3 → 3"):
        assert piece in printed, piece
    page = shown((run / "report" / "index.html").read_text())
    assert "loudness of &lt;b&gt;answers&lt;/b&gt;" in page
    assert "10.00 → 8.00" in page or "10 → 8" in page
    assert page.index("alert(0)&lt;/script&gt;") < page.index("alert(2)&lt;/script&gt;"), "before is left of after"
    assert "<script>alert" not in page
    assert "Forget stage: the forget" not in page
    (level, count) = csv.DictReader((run / "report" / "tables" / "probe_loudness.csv").open())
    assert (float(level["before"]), float(level["after"]), float(level["change"]), level["unit"]) == (10, 8, -2, "dB|A")
    assert (level["name"], count["name"]) == ("loudness/level", "loudness/undeclared_count")
    assert r"dB\|A" in (run / "report" / "tables" / "probe_loudness.md").read_text()
    assert (run / "report" / "table.csv").read_text() == (run / "report" / "tables" / "probe_loudness.csv").read_text()
    assert (run / "report" / "figures" / "probe_loudness.svg").is_file()
    assert "GradientAscent: loudness: loudness of" in build(run, run / "report").verdict.headline


def test_a_grid_is_compared_by_what_varies(runs, without_figures):
    made = build(runs)
    table = made.tables["probe_loudness"]
    assert [row[0] for row in table.texts()][::2] == ["GradientAscent · lr=1e-05", "GradientAscent · lr=0.001"]
    (chart,) = (chart for chart in made.charts if chart.key == "probe_loudness")
    assert [[line.name for line in panel.lines] for panel in chart.panels] == [[row[0] for row in table.texts()][::2]] * 2
    assert [line.y for line in chart.panels[0].lines] == [[10, 9, 8]] * 2
    answers = made.tables["answers_loudness"]
    assert len(answers.rows) == 3 * 2, "three prompts, two runs"


@pytest.mark.parametrize("quantities", [{"loudness/level": 3}, {"loudness/level": {"title": 3}}, [], {"loudness/level": {"color": "red"}}])
def test_a_record_whose_words_are_damaged_is_left_out_and_named(runs, tmp_path, without_figures, quantities):
    run = tmp_path / "run"
    shutil.copytree(runs / "rate0.001", run, ignore=shutil.ignore_patterns("report"))
    path = run / "records" / "loudness" / "000001.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "quantities": quantities}))
    about = json.loads((run / "run.json").read_text())
    # Its digest would tell that the record was edited at all.
    (run / "run.json").write_text(json.dumps({name: value for name, value in about.items() if name != "files"}))
    made = build(run)
    assert any("000001.json" in problem and "quantit" in problem for problem in made.problems)


def test_a_run_without_stages_lacks_no_retrained_model_and_its_headline_names_each_set_once(runs, tmp_path, without_figures):
    run = tmp_path / "alone"
    shutil.copytree(runs / "rate0.001", run, ignore=shutil.ignore_patterns("report"))
    for probe in ("divergence", "retain_answers", "retain", "forget_answers"):
        record = {
            "format": 1,
            "probe": probe,
            "step": 0,
            "metrics": {f"{probe}/x": 1.0},
            "examples": [{"id": "a", "token_log_lik": [-1.0]}],
        }
        (run / "records" / probe).mkdir()
        (run / "records" / probe / "000000.json").write_text(json.dumps(record))
    report = build(run)
    assert not [problem for problem in report.problems if "retrained" in problem]
    said = [piece.split(":")[0].strip() for piece in report.verdict.headline.removeprefix("GradientAscent:").split(";")]
    assert said == ["forget_answers", "retain", "divergence", "loudness"]
    # The numbers of the first probe, and no weight of the gradient, are table.csv.
    assert (run / "report" / "table.csv").read_text() == (run / "report" / "tables" / "probe_forget_answers.csv").read_text()
