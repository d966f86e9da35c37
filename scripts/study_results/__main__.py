"""python -m scripts.study_results runs/demo: docs/data/demo.csv, and the block of docs/results.md between its markers."""

import argparse
import shutil
from pathlib import Path

from scripts.study_results.earlier import with_earlier
from scripts.study_results.pages import DOCS, PAGES, Page
from scripts.study_results.table_file import put, read, write
from scripts.study_results.twins import as_twin, own, twins_of


def main(study: Path, page: Page, twin: Path | None, how: str, objectives: list[str] | None = None, earlier: Path | None = None) -> None:
    """Writes the CSV, the page's block and its figure, and says so."""
    path, text = page.csv(study.stem), DOCS / page.name
    made_with, rows = read(study) if study.suffix == ".csv" else page.measured(study)
    rows = own(rows)
    if earlier is not None:
        made_with, rows = with_earlier((made_with, rows), read(earlier))
    if twin is not None:
        rows += as_twin((row for row in page.measured(twin)[1] if objectives is None or row.objective in objectives), page.compared)
        made_with["twin"] = how
    elif path.is_file() and (kept := twins_of(read(path)[1])):
        rows += kept
        made_with["twin"] = read(path)[0]["twin"]
        print("The twin's numbers are those that the CSV had; --twin reads them anew.")
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, made_with, rows)
    text.write_text(put(text.read_text(), study.stem, page.block(study.stem, *read(path))))
    print(f"{path} and {text}, between the markers of {study.stem}.")
    if figure := page.figure(study):
        print(shutil.copy(figure, DOCS / f"{Path(page.name).stem}-{study.stem}.png"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/results")
    parser.add_argument("study", type=Path, help="a finished study's folder, such as runs/demo, or the CSV that was made of one")
    parser.add_argument("--page", type=Path, default=Path("docs/results.md"), help=f"the page to write to, one of {', '.join(PAGES)}")
    parser.add_argument("--twin", type=Path, help="the folder of the same study, computed by another way that is equal up to rounding")
    parser.add_argument("--how", default="", help="what the twin was computed with, as the page is to say it")
    parser.add_argument("--objectives", nargs="+", help="those of the twin that have the study's settings (default: all)")
    parser.add_argument("--earlier", type=Path, help="the CSV of other seeds of the study, whose folders are gone")
    given = parser.parse_args()
    if given.page.name not in PAGES:
        parser.error(f"--page {given.page} has no tables of studies; give one of {', '.join(f'docs/{name}' for name in PAGES)}")
    if given.twin and not given.how:
        parser.error("--twin needs --how: what it was computed with, such as `backbone.shortcuts: false`")
    main(given.study, PAGES[given.page.name], given.twin, given.how, given.objectives, given.earlier)
