"""The tables of docs/reproduce.md and superficial.md, with numbers to redo by hand; what they say is what their CSV says."""

import json

import pytest
from test_report_dependence import further_study
from test_report_depth import write as write_depth_study
from test_report_study_data import StudyWriter

from scripts.study_results.__main__ import main as write_results
from scripts.study_results.depth import depth_texts, measured_depth, orders
from scripts.study_results.pages import PAGES
from scripts.study_results.table_file import read, write
from scripts.study_results.twins import as_twin
from scripts.study_results.variants import SLOWEST, measured_variants, variants_tables, variants_texts
from unlearn_lightning.records.statistics import Share, estimate
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.depths import depths
from unlearn_lightning.report.sections.recency import MEASURED


def rates_study(folder):
    """Two rates of gradient ascent in two seeds: p=1 falls by `fall`, p=4 by 1; the distance between them grows from 4 to `end` squared."""
    writer = StudyWriter(folder)
    for seed in (1, 2):
        for rate, fall, end in ((1e-5, 2.0, 4.0), (1e-4, 7.0 + seed, 8.0)):
            for p, drop, apart in ((1, fall, (0.0, 0.0)), (4, 1.0, (2.0, end))):
                curve = {0: -0.5, 4: -0.5 - drop}
                vectors = {step: {"a": [value]} for step, value in zip((0, 4), apart, strict=True)}
                writer.unlearn(
                    seed, p, f"ga-{rate}", label=curve, phrases=curve, margin=curve, vectors=vectors, accuracy={0: 0.9, 4: 0.1 * p},
                    more_tags={"objective": "ga", "lr": rate},
                )  # fmt: skip
    return writer.write()


def test_what_the_path_decides_under_two_rates(tmp_path):
    made, rows = measured_variants(rates_study(tmp_path))
    decided, slowest, changes = variants_tables(made, rows)
    low, high = (row.cells for row in decided.rows)
    assert [low[0], high[0]] == ["GA · lr=1e-05", "GA · lr=0.0001"]
    # Drops 2 and 1; 8 and 1, or 9 and 1: means 1.5; 4.5 and 5; spreads 1; 7 and 8.
    assert [cell.mean for cell in low[1:4]] == pytest.approx([1.5, 1.0, 1 / 1.5])
    assert high[1] == estimate([4.5, 5.0])
    assert high[2] == estimate([7.0, 8.0])
    # Nothing was asked of its answers; of p=1's 0.1 and p=4's 0.4 the lower is shown; distances 4 to 16 and 4 to 64.
    assert (low[5].n, low[6].mean) == (0, pytest.approx(0.1))
    assert [low[8], high[8]] == ["4 (4 to 4)", "16 (16 to 16)"]
    assert [row.cells[1] for row in slowest.rows] == [Share(2, 2), Share(2, 2)]
    [change] = changes.rows
    assert change.cells[:3] == ("GA · lr=0.0001", "GA · lr=1e-05", estimate([3.0, 3.5]))
    assert change.cells[-1] == "4 (4 to 4)"


def test_further_stages_have_a_row_each(tmp_path):
    study = further_study(tmp_path, {"p1": (3.0, 3.0), "last": (1.0, 2.0), "last+1": (4.0, 2.5), "last+2": (3.0, 9.0)})
    [table] = variants_tables(*measured_variants(study.folder))
    assert [(row.cells[1], row.cells[4]) for row in table.rows] == [(0, Share(2, 2)), (1, Share(1, 2)), (2, Share(0, 2))]
    assert table.rows[1].cells[2] == (estimate([0.0, 0.0]), estimate([-4.0, -2.5]))


def test_depths_of_a_csv_are_those_of_the_study(tmp_path):
    folder = write_depth_study(tmp_path / "study", [("UCR", "URC"), ("CRU",)])
    made, rows = measured_depth(folder)
    write(tmp_path / "study.csv", made, rows)
    found, expected = orders(*read(tmp_path / "study.csv")), depths(load_study(folder))
    assert [[run.kind for run in one.outcomes] for one in found] == [[run.kind for run in one.outcomes] for one in expected]
    assert [(one.path.label, one.expected) for one in found] == [(one.path.label, one.expected) for one in expected]
    assert depth_texts(made, rows) == depth_texts(*read(tmp_path / "study.csv"))


def test_twins_of_variants_by_hand(tmp_path):
    """A label that differs by 0.2 on two of four places, p=4's: √(0.2² / 2 / 2) = 0.1. One verdict is another one, of one rate."""
    made, rows = measured_variants(rates_study(tmp_path))
    shifted = [row._replace(after=row.after + 0.2) if row[1:4:2] == ("p=4", "label") else row for row in rows]
    flag = next(row for row in shifted if row.quantity == SLOWEST + next(iter(MEASURED)))
    others = [row._replace(after=1 - row.after) if row is flag else row for row in shifted]
    *tables, told, twins = variants_texts({**made, "twin": "another way"}, [*rows, *as_twin(others, PAGES["reproduce.md"].compared)])
    assert tables == variants_texts(made, rows)
    assert told.startswith("**What rounding does.** The same study again with another way, which is equal up to rounding: seeds 1, 2.")
    low, high = twins.splitlines()[2:]
    measures = sum(row.quantity.startswith(SLOWEST) for row in rows if row.objective == "GA · lr=1e-05")
    assert low.startswith("| GA · lr=1e-05 | 0.1 | 0 | 0 | 0 | 0 | 0 |")
    assert f"| {measures - 1} of {measures} (" in low
    assert f"| {measures} of {measures} (" in high


def test_twins_of_orders_by_hand(tmp_path):
    """In the twin one of twelve orders is deep that is not in the study: C ends at -40 instead of -14."""
    made, rows = measured_depth(write_depth_study(tmp_path / "study", [("UCR", "URC"), ("CRU",)]))
    _, twin = measured_depth(write_depth_study(tmp_path / "twin", [("UCR", "URC"), ("CRU", "RCU")]))
    both = [*rows, *as_twin(twin, PAGES["superficial.md"].compared)]
    *texts, told = depth_texts({**made, "twin": "another way"}, both)
    assert texts == depth_texts(made, rows)
    assert "seeds 1, 2. The log-likelihoods after unlearning differ by 26 nats at most, and 11 of 12 runs are called the same." in told


def test_a_page_says_what_its_csv_says(tmp_path):
    made, rows = measured_variants(rates_study(tmp_path))
    write(tmp_path / "rates.csv", made, rows)
    text = PAGES["reproduce.md"].block("rates", *read(tmp_path / "rates.csv"))
    assert text.endswith("\n".join(variants_texts(made, rows)))
    assert text.startswith("Written by `scripts/results runs/rates --page docs/reproduce.md` at commit ")
    assert "GA · lr=0.0001 | GA · lr=1e-05 | +3.25" in text


def test_what_was_known_before_unlearning_is_counted_beside_it(tmp_path):
    study = rates_study(tmp_path / "rates")
    assert "before unlearning" not in "\n".join(variants_texts(*measured_variants(study)))
    answers = {f"seed{seed} p=4": {"refused": 1.0, "solved": share, "facts": 0.75} for seed, share in ((1, 0.5), (2, 0.75))}
    (study / "acceptance.json").write_text(json.dumps({**answers, "seed1 inst > tofu": {"facts": 1.0}}))
    first, *_ = variants_texts(*measured_variants(study))
    assert [line for line in first.splitlines() if line.startswith("| p=")] == ["| p=4 | 1.00 ± 0.00 | 0.62 ± 1.59 | 0.75 ± 0.00 |"]


def test_a_study_that_is_written_again_keeps_its_twin(tmp_path, monkeypatch, capsys):
    """Without --twin the page's table of twins stays as it was, and one line says that its numbers are not new."""
    monkeypatch.setattr("scripts.study_results.pages.DOCS", tmp_path)
    monkeypatch.setattr("scripts.study_results.__main__.DOCS", tmp_path)
    (tmp_path / "reproduce.md").write_text("<!-- results of study -->\n<!-- end of study -->\n")
    study, page = rates_study(tmp_path / "rates"), PAGES["reproduce.md"]
    write_results(study, page, study, "another way")
    first = (tmp_path / "reproduce.md").read_text()
    assert "What rounding does" in first
    for given in (study, page.csv(study.stem)):
        write_results(given, page, None, "")
        assert (tmp_path / "reproduce.md").read_text() == first
        assert "The twin's numbers are those that the CSV had" in capsys.readouterr().out
