"""python -m scripts.study_results runs/demo: docs/data/demo.csv, and the block of docs/results.md between its markers."""

import argparse
from pathlib import Path

from scripts.study_results.earlier import with_earlier
from scripts.study_results.measured import measured
from scripts.study_results.table_file import block, put, read, write
from scripts.study_results.twins import as_twin, own

DOCS = Path(__file__).parents[2] / "docs"


def main(study: Path, twin: Path | None, how: str, objectives: list[str] | None = None, earlier: Path | None = None) -> None:
    """Writes both and says so."""
    path, page = DOCS / "data" / f"{study.stem}.csv", DOCS / "results.md"
    made_with, rows = read(study) if study.suffix == ".csv" else measured(study)
    rows = own(rows)
    if earlier is not None:
        made_with, rows = with_earlier((made_with, rows), read(earlier))
    if twin is not None:
        rows += as_twin(row for row in measured(twin)[1] if objectives is None or row.objective in objectives)
        made_with["twin"] = how
    write(path, made_with, rows)
    page.write_text(put(page.read_text(), study.stem, block(study.stem, *read(path))))
    print(f"{path} and {page}, between the markers of {study.stem}.")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/results")
    parser.add_argument("study", type=Path, help="a finished study's folder, such as runs/demo, or the CSV that was made of one")
    parser.add_argument("--twin", type=Path, help="the folder of the same study, computed by another way that is equal up to rounding")
    parser.add_argument("--how", default="", help="what the twin was computed with, as the page is to say it")
    parser.add_argument("--objectives", nargs="+", help="those of the twin that have the study's settings (default: all)")
    parser.add_argument("--earlier", type=Path, help="the CSV of other seeds of the study, whose folders are gone")
    given = parser.parse_args()
    if given.twin and not given.how:
        parser.error("--twin needs --how: what it was computed with, such as `backbone.shortcuts: false`")
    main(given.study, given.twin, given.how, given.objectives, given.earlier)
