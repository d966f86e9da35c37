"""Deep or superficial: the paper's rule on curves to redo by hand, and what the report says of a study of response families."""

import csv
import io
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console
from test_report_study_data import StudyWriter, section_of

from unlearn_lightning.records.statistics import Share
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report import build
from unlearn_lightning.report.depths import depth, depths
from unlearn_lightning.report.sections.depth import DepthOfForgetting, depth_charts, depth_table

ORDERS = ("UCR", "URC", "CUR", "RUC", "CRU", "RCU")
DEEP = {"C": {0: -10.0, 5: -40.0}, "U": {0: -10.0, 5: -60.0}}
SUPERFICIAL = {"C": {0: -10.0, 5: -14.0}, "U": {0: -10.0, 5: -60.0}}


class Families(StudyWriter):
    """Studies of the six orders, 5 steps of unlearning in 5 epochs; R falls from -12 to -20 everywhere."""

    def order(self, seed, name, curves, epochs=5, **more_tags):
        tags = {"seed": seed, "path": list(name), "p": name.index("U") + 1, "path_name": name, "objective": "ga", **more_tags}
        config = yaml.safe_dump({"trainer": {"max_epochs": epochs}})
        folder = self.run(f"seed{seed}/{name}/ga{more_tags.get('lr', '')}", "unlearn", tags, config=config, steps=10)
        for step in (0, 5):
            values = {"R": {0: -12.0, 5: -20.0}, **curves}
            metrics = {f"families/{family}_log_lik": curve[step] for family, curve in values.items()}
            self.record(folder, "families", step * 2, metrics, [])


def write(folder, verdicts):
    """Seed by seed: the orders in which forgetting is deep."""
    writer = Families(folder)
    for seed, deep in enumerate(verdicts, start=1):
        for name in ORDERS:
            writer.order(seed, name, DEEP if name in deep else SUPERFICIAL)
    return writer.write()


def said_of(folder):
    """The section's verdict and its sentences, without drawing anything."""
    section = section_of(DepthOfForgetting, folder)
    return SimpleNamespace(headline=section.verdict().headline, agrees=section.verdict().agrees, sentences=section.sentences())


@pytest.mark.parametrize(
    ("ends", "kind", "margin"),
    [
        ({"R": -20.0, "C": -40.0, "U": -60.0}, "deep", 20.0),
        ({"R": -20.0, "C": -14.0, "U": -60.0}, "superficial", -6.0),
        ({"R": -20.0, "C": -20.0, "U": -60.0}, "superficial", 0.0),
        ({"R": -20.0, "C": -40.0, "U": -19.0}, "not forgotten", 20.0),
    ],
)
def test_the_rule(ends, kind, margin):
    found = depth(1, {name: {0: -10.0, 7: end} for name, end in ends.items()})
    assert (found.kind, found.margin, found.margin_before) == (kind, margin, 0.0)
    assert found.falls == {name: -10.0 - end for name, end in ends.items()}
    assert found.share == pytest.approx((-10.0 - ends["C"]) / (-10.0 - ends["U"]))


def test_the_papers_grouping_over_two_seeds(tmp_path):
    found = said_of(write(tmp_path, [("UCR", "URC"), ("UCR", "URC")]))
    headline = "As in the paper: forgetting is deep in 4 of 4 runs that learned U first, and in 0 of 8 runs that did not."
    assert (found.headline, found.agrees) == (headline, True)
    low, high = Share(2, 2).interval
    said = f"The paper's grouping of all orders appears in 2 of 2 seeds (95% Wilson interval {low:.0%} to {high:.0%})."
    assert said in found.sentences


def test_superficial_everywhere_is_not_called_the_papers_grouping(tmp_path):
    """Four of six orders agree with the paper then, by never being deep."""
    found = said_of(write(tmp_path, [()]))
    assert found.agrees is False
    assert found.headline.startswith("Not as in the paper: forgetting is deep in 0 of 2 runs that learned U first, and in 0 of 4")


def test_a_single_odd_order_is_named(tmp_path):
    verdict = said_of(write(tmp_path, [("UCR", "URC"), ("UCR", "URC", "CUR")]))
    assert verdict.headline.startswith("Mostly as in the paper: forgetting is deep in 4 of 4 runs that learned U first, and in 1 of 8")
    assert "Deep: UCR 2/2, URC 2/2, CUR 1/2; superficial: CUR 1/2, RUC 2/2, CRU 2/2, RCU 2/2." in verdict.sentences
    assert any("1 of 2 seeds" in sentence for sentence in verdict.sentences)


def test_some_of_the_orders_are_no_verdict(tmp_path):
    """Two orders that agree with the paper are not called a contradiction, nor its grouping."""
    writer = Families(tmp_path)
    for name, curves in (("URC", DEEP), ("CRU", SUPERFICIAL)):
        writer.order(1, name, curves)
    writer.order(1, "CUR", {})
    folder = writer.write()
    found = said_of(folder)
    headline = "No verdict yet: forgetting is deep in 1 of 1 run that learned U first, and in 0 of 1 run that did not."
    assert (found.headline, found.agrees) == (headline, None)
    assert found.sentences[0] == "No seed has all orders yet, so that the paper's grouping is not tested."
    (chart,) = depth_charts(load_study(folder))
    assert len(chart.panels) == 3, "an order that was not run has no panel"


def test_several_rates_are_counted_and_told_apart(tmp_path):
    writer = Families(tmp_path)
    for rate, deep in ((0.03, ("UCR", "URC")), (0.05, ORDERS)):
        for name in ORDERS:
            writer.order(1, name, DEEP if name in deep else SUPERFICIAL, lr=rate)
    study = load_study(writer.write())
    found = said_of(study.folder)
    assert found.headline.startswith("Not as in the paper: forgetting is deep in 4 of 4 runs that learned U first, and in 4 of 8")
    assert any("appears in 1 of 2 seed × objective cells" in sentence for sentence in found.sentences)
    assert "GA · lr=0.03: deep: UCR, URC; superficial: CUR, RUC, CRU, RCU." in found.sentences
    assert {"families", "families_1"} <= {chart.key for chart in depth_charts(study)}
    assert depth_table(depths(study)).texts()[6][:3] == ["UCR", "GA · lr=0.05", "deep"]


def test_deep_from_the_start_is_told_apart(tmp_path):
    writer = Families(tmp_path)
    writer.order(1, "UCR", {"C": {0: -30.0, 5: -40.0}, "U": {0: -10.0, 5: -60.0}})
    writer.order(1, "RCU", SUPERFICIAL)
    study = load_study(writer.write())
    assert "In 1 of the 1 deep runs C lay below R before unlearning already." in said_of(study.folder).sentences
    assert depths(study)[0].outcomes[0].margin_before == 18.0


def test_the_figure_has_a_panel_per_order_and_counts_epochs(tmp_path):
    study = load_study(write(tmp_path, [("UCR",), ("UCR",)]))
    (chart,) = depth_charts(study)
    assert [panel.title for panel in chart.panels] == list(ORDERS)
    assert [line.name for line in chart.panels[0].lines] == ["R", "C", "U"]
    # 10 steps in 5 epochs.
    assert chart.panels[0].lines[1].x == [0.0, 5.0]
    assert chart.panels[0].lines[1].y == [-10.0, -40.0]
    assert chart.x_title == "unlearning epoch"


def test_table_page_and_files(tmp_path):
    report = build(write(tmp_path, [("UCR", "URC"), ("UCR",)]))
    assert report.problems == []
    shown = [table.name for section in report.sections for table in section.tables if table.on_terminal]
    assert shown == ["depth"], "the probe's own table says the same at length"
    table = depth_table(depths(report.study))
    assert table.texts()[1][:3] == ["URC", "deep 1/2, superficial 1/2", "deep"]
    page = (report.folder / "index.html").read_text()
    for text in (
        "Is forgetting deep or superficial?",
        "Does forgetting U reach C?",
        '<i class="dot c3"></i>U',
        "deep 1/2, superficial 1/2",
    ):
        assert text in page
    assert "What unlearning did to each path" not in page, "nothing of it was measured"
    assert "forget score" not in (report.folder / "table.md").read_text()
    assert "dependence" not in report.tables
    assert "| URC | deep 1/2, superficial 1/2 | deep |" in (report.folder / "table.md").read_text()
    rows = list(csv.DictReader((report.folder / "depth.csv").open()))
    assert len(rows) == 12
    columns = ("order", "seed", "verdict", "paper", "margin_after", "fall_C")
    assert [rows[0][name] for name in columns] == ["U C R", "1", "deep", "deep", "20.0", "30.0"]
    assert {"families.svg", "families.png"} <= {path.name for path in report.files}
    assert report.summary["depth"][0]["verdicts"] == ["deep", "deep"]
    stream = io.StringIO()
    report.print(Console(file=stream, width=80))
    assert "deep 1/2" in stream.getvalue()
    assert "−2.0 → 20.0" in stream.getvalue()


def test_a_study_without_such_records_has_none_of_it(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        writer.unlearn(1, p, "npo", label={0: 0.0, 8: -9.0 / p})
    section = section_of(DepthOfForgetting, writer.write())
    assert (section.shown, section.verdict(), list(section.sentences())) == ([], None, [])
