"""What a section may rely on: it is found, its tables say the same everywhere, hostile texts stay texts, and large figures are drawn."""

import csv
import io
import math
from itertools import combinations

import matplotlib as mpl
import pytest
from rich.console import Console
from test_report_study_data import StudyWriter, section_of

from unlearn_lightning.records.statistics import Estimate, Share, estimate
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report import build
from unlearn_lightning.report.blocks import Prose, Table
from unlearn_lightning.report.chart import MOST_LINES, MOST_PANELS, Chart, Line, Panel
from unlearn_lightning.report.columns import Change, Counted, Flag, Interval, Number, Text
from unlearn_lightning.report.print_figures import STYLE, draw
from unlearn_lightning.report.section import Material, Section, Verdict
from unlearn_lightning.report.sections import sections
from unlearn_lightning.report.sections.gradient_weight import GradientWeight

HOSTILE = ["<script>window.pwned=1</script>", "\x1b[31mred\x1b[0m", "\u202egnorts", "a | b\nc", "=1+1", "@SUM(A1)", "[bold]x[/bold]"]


def on_terminal(table, width=100):
    stream = io.StringIO()
    Console(file=stream, width=width).print(table.terminal())
    return stream.getvalue()


@pytest.fixture(scope="module")
def lengths():
    """A section as a plug-in brings it; without its records no other test sees it."""

    class Lengths(Section):
        place = 42
        heading = "How long are the answers?"

        def blocks(self):
            table = Table("lengths", [Text("run"), Number("length", unit="tokens", digits=1)], on_terminal=True)
            for run in self.study.finished("stage"):
                for value in run.metric("lengths", "lengths/tokens").values():
                    table.add(run.name, value)
            return [table, Prose("")]

        def verdict(self):
            return Verdict("Answers were measured.", weight=0.5) if self.shown else None

        def sentences(self):
            return ["They are short."] if self.shown else []

        def problems(self):
            return ["No answer was cut."] if self.shown else []

        def summary(self):
            return {"lengths": len(self.shown)}

    return Lengths


def stages_alone(folder, records=True):
    """A study with a single training run: no path, no objective."""
    writer = StudyWriter(folder)
    run = writer.retrained(1)
    if records:
        writer.record(run, "lengths", 4, {"lengths/tokens": 12.34567890123}, [])
    return writer.write()


def test_a_section_is_found_and_appears_everywhere_with_nothing_else_edited(tmp_path, lengths):
    report = build(stages_alone(tmp_path))
    page, markdown = ((report.folder / name).read_text() for name in ("index.html", "table.md"))
    assert '<section id="test_report_sections"><h2>How long are the answers?</h2>' in page
    assert '<th class="n">length (tokens)</th>' in page
    assert "<span>12.3</span>" in page
    assert "| seed1/inst-tofu-math | 12.3 |" in markdown
    assert (report.folder / "tables/lengths.csv").read_text() == "run,length\nseed1/inst-tofu-math,12.34567890123\n"
    assert (report.verdict.headline, report.sentences) == ("Answers were measured.", ["They are short."])
    assert report.problems == ["No answer was cut."]
    assert report.summary["lengths"] == 1
    stream = io.StringIO()
    report.print(Console(file=stream, width=80))
    assert "12.3" in stream.getvalue()


def test_sections_without_records_are_left_out(tmp_path, lengths):
    report = build(stages_alone(tmp_path, records=False))
    assert [section.key for section in report.sections if section.shown] == ["provenance"]
    assert report.verdict.headline == "No path was unlearned."
    assert report.problems == []
    assert report.charts == []
    assert "0 paths" not in (report.folder / "index.html").read_text()


def test_places_order_the_sections(tmp_path, lengths):
    found = sections(Material(load_study(stages_alone(tmp_path))))
    places = [section.place for section in found]
    assert places == sorted(places)
    assert lengths in map(type, found)
    assert len({section.key for section in found}) == len(found), "anchors tell sections apart"


def test_numbers_keep_their_precision_in_a_column_of_their_own():
    table = Table("x", [
        Text("name"), Number("length"), Interval("mean", "m", digits=2, signed=True), Change("in out", "before", after="after", digits=1),
        Counted("hits", "h"), Flag("", "low", sign="◂ lowest"), Number("hidden", in_full=True),
    ])  # fmt: skip
    one, none = estimate([1 / 3, 2 / 3]), Estimate(math.nan, math.nan, 0)
    table.add("a", 10, one, (one, none), Share(2, 3, 1), True, 7)
    table.add("b", math.nan, none, (none, none), Share(0, 0), False, None)
    header, first, second = csv.reader(io.StringIO(table.csv()))
    assert header == [
        "name", "length", "m", "m_ci95", "m_seeds", "before", "before_ci95", "before_seeds", "after", "after_ci95", "after_seeds",
        "h", "h_low", "h_high", "h_hits", "h_seeds", "h_left_out", "low", "hidden",
    ]  # fmt: skip
    assert first[:9] == ["a", "10", repr(one.mean), repr(one.half_width), "2", repr(one.mean), repr(one.half_width), "2", ""]
    assert (first[11], first[14:]) == (repr(2 / 3), ["2", "3", "1", "1", "7"])
    assert second == ["b", "", "", "", "0", "", "", "0", "", "", "0", "", "", "", "0", "0", "0", "0", ""]
    low, high = Share(2, 3).interval
    assert table.texts() == [
        ["a", "10", "+0.50 ± 2.12", "0.5 ± 2.1 → –", f"2 of 3 ({low:.0%} to {high:.0%}), 1 left out", "◂ lowest"],
        ["b", "–", "–", "– → –", "–", ""],
    ]
    with pytest.raises(ValueError, match="7 columns, got 1 cells"):
        table.add("a")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_stay_texts_in_every_renderer(text, tmp_path):
    table = Table("x", [Text("run"), Text("answer", long=True), Number("n")], heading=text, caption=text)
    table.add("a", text, -1.5)
    read = next(csv.DictReader(io.StringIO(table.csv())))
    assert read["answer"].lstrip("'") == text
    assert not read["answer"].startswith(("=", "+", "-", "@"))
    assert read["n"] == "-1.5", "a number is none of them"
    printed = on_terminal(table)
    assert "\x1b[31m" not in printed
    assert "\u202e" not in printed
    assert "[bold]" in printed or "[bold]" not in text
    markdown = table.markdown()
    assert "<script" not in markdown
    assert "\x1b" not in markdown
    assert len(markdown.splitlines()) == 3, "a row is a line"
    writer = StudyWriter(tmp_path, name=text)
    writer.retrained(1)
    page = build(writer.write()).folder / "index.html"
    assert "<script>window" not in page.read_text()


@pytest.mark.parametrize(("lines", "panels", "columns"), [(16, 1, 0), (62, 1, 0), (1770, 3, 0), (2, 500, 500)])
def test_large_figures_are_drawn_and_say_what_they_left_out(lines, panels, columns):
    made = [Panel(f"panel {i}", [Line(f"a long name of a path, {j}", (j,), [0, 1], [0.0, j]) for j in range(lines)]) for i in range(panels)]
    chart = Chart("x", "", "", "step", "nats", made, columns=columns).readable()
    assert len(chart.panels) <= MOST_PANELS
    assert all(len(panel.lines) <= MOST_LINES for panel in chart.panels)
    figure = draw(chart)
    texts = [text.get_text() for text in figure.texts]
    assert ("Drawn: the first" in " ".join(texts)) == (lines > MOST_LINES or panels > MOST_PANELS)
    named = sum(len(legend.get_texts()) for legend in figure.legends)
    assert named == lines or f"No legend: {min(lines, MOST_LINES)} lines." in " ".join(texts)


def test_an_objective_that_spent_its_gradient_is_named(tmp_path):
    writer = StudyWriter(tmp_path)
    weights = {1: [1.0, 0.5, 0.009, 0.02], 4: [1.0, 0.5, 0.009, 0.001]}
    for p, values in weights.items():
        run = writer.unlearn(1, p, "npo", label={0: 0.0, 4: -1.0})
        lines = [f"{step},{value}" for step, value in zip((1, 2, 3, 4), values, strict=True)]
        (run / "metrics.csv").write_text("\n".join(["step,train/gradient_weight", *lines, "5,"]))
    section = section_of(GradientWeight, writer.write())
    (table,) = section.tables
    assert [row[-2:] for row in table.texts()] == [["1.00 → 0.02", "–"], ["1.00 → 0.00", "3"]]
    assert list(section.sentences()) == [
        "The gradient's weight was below 1% of its start under NPO, p=4 from step 3: what follows there is the optimizer's momentum."
    ]


@pytest.mark.parametrize(("panels", "columns"), [(1, 0), (2, 2), (9, 3), (5, 0), (8, 4), (12, 6)])
def test_no_title_of_a_panel_reaches_into_the_next_or_out_of_the_figure(panels, columns):
    titles = ["SimNPO (normalised) · lr=0.00015", "GA", "NPO and the authors: paraphrases, logit margin and forget score"]
    lines = [Line("p=1", (0,), [0.0, 1.0], [0.0, -1.0])]
    with mpl.rc_context(STYLE):
        figure = draw(Chart("a", "", "", "step", "nats", [Panel(titles[i % 3], lines) for i in range(panels)], columns=columns))
        figure.draw_without_rendering()
    # The title that stands on the left.
    boxes = [axes._left_title.get_window_extent() for axes in figure.axes if axes.get_visible()]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    assert all(box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1 for box in boxes)
    plots = [axes.get_window_extent() for axes in figure.axes if axes.get_visible()]
    assert not any(box.overlaps(plot) for box in boxes for plot in plots)
