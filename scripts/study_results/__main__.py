"""python -m scripts.study_results runs/demo: docs/data/demo.csv, and the block of docs/results.md between its markers."""

import sys
from pathlib import Path

from scripts.study_results.measured import measured
from scripts.study_results.table_file import block, put, read, write

DOCS = Path(__file__).parents[2] / "docs"


def main(study: Path) -> int:
    """Writes both and says so."""
    path, page = DOCS / "data" / f"{study.name}.csv", DOCS / "results.md"
    write(path, *measured(study))
    page.write_text(put(page.read_text(), study.name, block(study.name, *read(path))))
    print(f"{path} and {page}, between the markers of {study.name}.")
    return 0


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Give one study folder: scripts/results runs/demo")
    sys.exit(main(Path(sys.argv[1])))
