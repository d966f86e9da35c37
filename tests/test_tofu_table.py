"""The page's table of a TOFU study: what stands in the report's tables, and none where there is none."""

import json

import pytest

from scripts import tofu_table
from scripts.tofu_table import QUANTITIES, block, table


def written(study, name, rows):
    place = study / "report" / "tables" / f"{name}.csv"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("\n".join([",".join(rows[0]), *(",".join(f'"{value}"' for value in row.values()) for row in rows)]) + "\n")


@pytest.fixture
def study(tmp_path):
    """Two objectives; each number of the second is that of the first plus 1, before unlearning 9."""
    folder, tables = tmp_path / "tofu", {}
    for place, (file, column, said, begin) in enumerate(QUANTITIES.values()):
        for more, name in enumerate(("GA", "NPO")):
            run = f"{name}, all" if file in ("forget_quality", "membership") else name
            rows = tables.setdefault(file.format(forget="forget05"), {})
            row = rows.setdefault((run, said), {"run": run, column: said.format(forget="forget05")})
            row |= {f"{begin}before": 9, f"{begin}after": place + more, "retrained": 0.5, "privleak": ""}
    for name, rows in tables.items():
        merged = {}
        for (run, _), row in rows.items():
            merged[run if name == "forget_quality" else (run, row.get("metric"))] = row
        written(folder, name, list(merged.values()))
    written(folder, "model_utility", [{"run": "GA", "of": "all nine", "quantity": "model utility", "before": 0.5, "after": 0.25}])
    return folder


def test_the_tables_numbers_are_the_reports(study):
    head, *rows = table(study)
    assert head == ["", "before", "GA", "NPO"]
    found = {row[0]: row[1:] for row in rows}
    for place, title in enumerate(QUANTITIES):
        assert found[title] == ["9", str(place), str(place + 1)]
    assert found["the same of the retrained model"] == ["", "0.5", "0.5"]
    assert found["PrivLeak, %"] == ["", "none", "none"]
    assert found["model utility"] == ["0.5", "0.25"]


def test_the_block_says_what_made_the_numbers(study, monkeypatch):
    (study / "study.json").write_text(json.dumps({"format": 1, "runs": [{"tags": {"seed": 7}, "folder": "x"}]}))
    about = {"commit": "abc", "processor": "a processor", "versions": "python 3", "runs": "4 runs"}
    monkeypatch.setattr(tofu_table, "made_with", lambda *_: about)
    text = block([study])
    assert text.startswith("Written by `scripts/tofu runs/tofu`.\n\n**tofu**, commit abc, seed 7; a processor; python 3; 4 runs:\n\n| ")
