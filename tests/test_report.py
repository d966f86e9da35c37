"""The whole report from synthetic study folders: what it writes, what it says when runs or probes are missing, and the verdict."""

import csv
import io
import math
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from test_report_study_data import StudyWriter, section_of, write_full_study

from unlearn_lightning.records.statistics import Estimate
from unlearn_lightning.report import build
from unlearn_lightning.report.columns import Change
from unlearn_lightning.report.sections.recency import RecencyEffect


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return build(write_full_study(tmp_path_factory.mktemp("full"), seeds=(1, 2)))


def printed(report, width: int = 80) -> str:
    stream = io.StringIO()
    report.print(Console(file=stream, width=width))
    return stream.getvalue()


def write_pair(folder: Path, drops: dict[int, float], seeds: tuple[int, ...] = (1,)) -> Path:
    """A study of one objective in which path p loses `drops[p]` nats of label log-likelihood."""
    writer = StudyWriter(folder)
    for seed in seeds:
        for p, value in drops.items():
            writer.unlearn(seed, p, "npo", label={0: 0.0, 2: -value}, phrases={0: 0.0, 2: -value})
    return writer.write()


def test_everything_is_written(full):
    assert {path.relative_to(full.folder).as_posix() for path in full.files} >= {
        "index.html", "table.csv", "table.md",
        "figures/label.svg", "figures/label.png", "figures/retrained.svg", "figures/paths.svg", "figures/frontier.png",
    }  # fmt: skip
    assert all(path.stat().st_size > 0 for path in full.files)
    assert full.problems == []


def test_every_table_is_there_as_csv_and_markdown(full):
    names = set(full.tables)
    assert {"recency", "matched_forgetting", "growth_rates", "unlearning_settings", "runs"} <= names
    for name in names:
        rows = list(csv.reader((full.folder / "tables" / f"{name}.csv").open()))
        assert len(rows) == 1 + len(full.tables[name].rows)
        assert (full.folder / "tables" / f"{name}.md").read_text() == full.tables[name].markdown()
    growth = list(csv.DictReader((full.folder / "tables" / "growth_rates.csv").open()))
    assert [row["paths"] for row in growth[:5]] == [*(f"p={p} | retrained model" for p in (1, 2, 3, 4)), "p=1 | p=2"]
    assert all(float(row["NPO_ci95"]) >= 0 for row in growth)
    cells = [cell for file in (full.folder / "tables").glob("*.csv") for row in csv.reader(file.open()) for cell in row]
    assert not [cell for cell in cells if " ± " in cell or cell.startswith(("+", "−"))], "a number has a column of its own, in full"


def test_the_frontier_has_bands_over_seeds(full):
    (chart,) = (chart for chart in full.charts if chart.key == "frontier")
    for line in (line for panel in chart.panels for line in panel.lines):
        assert len(line.low) == len(line.y)
        assert all(low <= y <= high for low, y, high in zip(line.low, line.y, line.high, strict=True))
    assert any(high > low for line in chart.panels[0].lines for low, high in zip(line.low, line.high, strict=True))


def test_the_page_is_small_and_loads_nothing(full):
    page = (full.folder / "index.html").read_text()
    assert len(page.encode()) < 2_000_000
    for loading in ("src=", '<link rel="stylesheet"', "@import", "url("):
        assert loading not in page.split('<script type="application/json"')[0]


def test_the_csv_holds_unrounded_numbers(full):
    rows = list(csv.DictReader((full.folder / "table.csv").open()))
    assert len(rows) == 12
    row = next(row for row in rows if row["p"] == "4" and row["objective"] == "GA")
    expected = [0.8 * 0.5 * 0.1 * (1 + 0.1 * seed) * 16**1.2 for seed in (1, 2)]
    assert float(row["forget_score"]) == pytest.approx(sum(expected) / 2)
    assert row["path"] == "inst tofu math safety"
    assert row["slowest"] == "1"
    assert row["forget_score_seeds"] == "2"


def test_the_markdown_table_has_a_row_per_path_and_objective(full):
    lines = (full.folder / "table.md").read_text().split("\n\n")[2].splitlines()
    assert len(lines) == 2 + 12
    assert sum("lowest forget score" in line for line in lines) == 3
    header, ga = (
        lines[0].split(" | "),
        next(line for line in lines if line.startswith("| p=4 inst → tofu → math → safety | GA")).split(" | "),
    )
    for column in ("math accuracy", "distance to retrained"):
        assert ga[header.index(column)].count(" ± ") == 2, "of several seeds, before and after both have an interval"


@pytest.mark.parametrize(
    ("before", "after", "digits", "text"),
    [
        (Estimate(0.894, 0.061, 3), Estimate(0.84, 0.112, 3), 2, "0.89 ± 0.06 → 0.84 ± 0.11"),
        (Estimate(296.6, 80.4, 3), Estimate(1277.2, 310.5, 3), 1, "297 ± 80 → 1,277 ± 310"),
        (Estimate(21.84, 3.0, 3), Estimate(39.36, 4.25, 3), 1, "21.8 ± 3.0 → 39.4 ± 4.2"),
        (Estimate(21.84, math.nan, 1), Estimate(739.36, math.nan, 1), 1, "21.8 → 739.4"),
        (Estimate(0.5, math.nan, 1), Estimate(math.nan, math.nan, 0), 2, "0.50 → –"),
    ],
)
def test_before_and_after_with_their_intervals(before, after, digits, text):
    assert Change("x", digits=digits).text((before, after)) == text


def test_the_closing_table_fits_80_columns(full):
    text = printed(full)
    # The line with the page's place is as long as that is, so that it can be copied.
    assert max(len(line) for line in text.splitlines() if not line.startswith("Report: ")) <= 80
    assert text.count("◂") == 3 + 1  # one per objective and the legend
    assert "…" not in text


def test_the_closing_table_can_be_printed_in_ascii(full):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    full.print(Console(file=stream, width=100))


def test_the_summary_is_data(full):
    summary = full.summary
    assert summary["recency"]["GA"] == {"last_is_slowest": 2, "seeds": 2}
    assert summary["rows"][0]["forget_score"]["n"] == 2


def test_missing_failed_and_running_runs_are_named_and_left_out(tmp_path):
    writer = StudyWriter(tmp_path)
    vectors = {0: {"a": [0.0]}, 2: {"a": [1.0]}}
    writer.unlearn(1, 1, "npo", label={0: 0.0, 2: -5.0}, phrases={0: 0.0, 2: -5.0}, vectors=vectors)
    writer.unlearn(1, 2, "npo", label={0: 0.0, 2: -4.0}, status="running")
    writer.unlearn(1, 3, "npo", status="failed", error="OutOfMemoryError: <7 GiB>")
    writer.unlearn(1, 4, "npo", status=None)
    report = build(writer.write())
    assert [row["p"] for row in report.summary["rows"]] == [1]
    assert report.problems[:3] == [
        "seed1/p3/npo failed: OutOfMemoryError: <7 GiB>",
        "seed1/p2/npo is not finished",
        "Not run: seed1/p4/npo",
    ]
    assert "retrained model for seed 1" in report.problems[3]
    assert "OutOfMemoryError: &lt;7 GiB&gt;" in (report.folder / "index.html").read_text()
    assert "No verdict yet" in printed(report)


def test_a_study_without_any_run_still_gives_a_page(tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        writer.unlearn(1, p, "npo", status=None)
    (tmp_path / "store").mkdir()
    report = build(writer.write())
    assert report.summary["rows"] == []
    assert (report.folder / "index.html").exists()
    assert "Not run: seed1/p1/npo, seed1/p4/npo" in printed(report)


def test_columns_of_absent_probes_are_left_out(tmp_path):
    report = build(write_pair(tmp_path, {1: 3.0, 4: 1.0}))
    closing = report.tables["closing"]
    assert [closing.columns[index].title for index in closing.shown] == ["path", "objective", "forget score", "label drop", ""]
    assert dict(zip(closing.header(), closing.plain()[0], strict=True))["retention"] is None
    assert {path.stem for path in report.files if path.suffix == ".svg"} == {"label", "paraphrases", "probe_forget"}


def test_one_stage_one_objective_one_path(tmp_path):
    assert "forget: label log lik 0 → −3" in build(write_pair(tmp_path, {1: 3.0})).verdict.headline


def test_another_output_folder(tmp_path):
    report = build(write_pair(tmp_path, {1: 3.0, 4: 1.0}), tmp_path / "elsewhere")
    assert (tmp_path / "elsewhere" / "index.html").exists()
    assert report.folder == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("last", "agrees", "words"),
    [
        ((0.1, 0.1, 0.1, 0.1), True, "As in the paper"),
        ((0.1, 0.1, 0.1, 9.0), True, "Mostly as in the paper"),
        ((0.1, 9.0, 9.0, 9.0), False, "Against the paper"),
        ((9.0, 9.0, 9.0, 9.0), False, "none of 4"),
    ],
)
def test_the_verdict_follows_the_data(tmp_path, last, agrees, words):
    writer = StudyWriter(tmp_path)
    for seed, value in enumerate(last):
        for p, drop in {1: 3.0, 2: 4.0, 3: 5.0, 4: value}.items():
            writer.unlearn(seed, p, "npo", label={0: 0.0, 2: -drop})
    found = section_of(RecencyEffect, writer.write()).verdict()
    assert found.agrees is agrees
    assert words in found.headline


def test_a_single_seed_is_called_an_observation(tmp_path):
    assert any("not a test" in sentence for sentence in section_of(RecencyEffect, write_pair(tmp_path, {1: 3.0, 4: 1.0})).sentences())


def test_text_from_the_probes_is_never_markup(tmp_path):
    evil = "</script><script>window.pwned = 1</script><img src=x onerror=alert(1)>"
    writer = StudyWriter(tmp_path, name="<b>study</b>")
    for p in (1, 4):
        vectors = {0: {"a": [1.0 * p]}, 2: {"a": [1.0 * p]}}
        label = {0: 0.0, 2: -1.0 * p}
        writer.unlearn(
            1, p, "<i>npo</i>", label, accuracy={0: 0.5, 2: 0.5}, vectors=vectors, text=evil, config=f"<u>setting</u>: <s>{p}</s>\n"
        )
    page = (build(writer.write()).folder / "index.html").read_text()
    for markup in ("<script>window", "<img src=x", "<i>npo", "<b>study", "<u>setting", "<s>1"):
        assert markup not in page
    assert "\\u003cimg src=x" in page  # it is there as data


def test_settings_in_which_siblings_differ_are_listed(full):
    page = (full.folder / "index.html").read_text()
    assert "optimizer.lr" in page
    assert "model.class_path" in page
    assert "model.beta" not in page  # the same everywhere


def test_importing_the_report_needs_nothing_that_is_slow_to_import():
    code = "import sys; import unlearn_lightning.report; print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "matplotlib", "pandas", "scipy.stats", "lightning"} & set(modules)
