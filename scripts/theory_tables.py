"""python -m scripts.theory_tables: runs `unlearn theory` as docs/theory.md says, and writes its tables into that page.

They go between their markers, the CSV of each to docs/data/theory/. The page's figures are of the same run.
"""

import csv
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy
import scipy
import torch

from scripts.study_results.measured import commit
from scripts.study_results.table_file import put
from unlearn_lightning.runs.computed_with import processor
from unlearn_lightning.theory.command import theory

DOCS = Path(__file__).parents[1] / "docs"
PAGE, DATA = DOCS / "theory.md", DOCS / "data" / "theory"
PARTS = ("theorem", "extensions", "removal", "certificates")
FIGURES = {"theorem.png": "theory.png", "extensions.png": "theory-extensions.png"}
# Folder -> what `unlearn theory` is told besides: the other orders and distributions, of which the page has a table of bounds.
OTHERS = {
    "four orders": ["--orders", "[UABC, AUBC, ABUC, ABCU]", "--parts", "[theorem, removal]"],
    **{name: ["--distribution", name, "--parts", "[theorem]"] for name in ("uniform", "sphere", "heavy_tailed", "correlated", "shifted")},
}


def bounds(folders: Path) -> Iterator[str]:
    """The table over the other orders and distributions: how far above the bound the distance stays, and how often the corollary held."""
    yield "| drawn | seeds | pairs of orders | least d / bound | corollary |\n| --- | ---: | ---: | ---: | ---: |\n"
    for name in OTHERS:
        with (folders / name / "theorem.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        least = min(float(row["least_distance_over_bound"]) for row in rows)
        shares = re.findall(r"\| (\d+) of (\d+) \|\n", (folders / name / "theorem.md").read_text(encoding="utf-8"))
        held = " of ".join(str(sum(map(int, counted))) for counted in zip(*shares, strict=True))
        pairs = {row["pair"] for row in rows}
        yield f"| {name.replace('_', ' ')} | {len({row['seed'] for row in rows})} | {len(pairs)} | {least:.3g} | {held} |\n"


def write(folders: Path) -> None:
    """Runs everything into subfolders of a folder, and puts the page, the CSV and the figures in their places."""
    theory(["--folder", str(folders / "theory")])
    for name, told in OTHERS.items():
        theory(["--folder", str(folders / name), *told])
    versions = f"numpy {numpy.__version__}, scipy {scipy.__version__}"
    made = f"Written by `scripts/theory` at commit {commit()}; {processor(torch.device('cpu'))}; {versions}."
    page = PAGE.read_text(encoding="utf-8")
    for part in PARTS:
        text = (folders / "theory" / f"{part}.md").read_text(encoding="utf-8")
        page = put(page, part, f"{made} Numbers: [data/theory/{part}.csv](data/theory/{part}.csv).\n\n{text}")
        DATA.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folders / "theory" / f"{part}.csv", DATA / f"{part}.csv")
    page = put(page, "other draws", f"{made}\n\n{''.join(bounds(folders))}")
    PAGE.write_text(page, encoding="utf-8")
    for made_as, name in FIGURES.items():
        shutil.copyfile(folders / "theory" / made_as, DOCS / name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folders:
        write(Path(folders))
    print(f"{PAGE}, between its markers; {DATA}")
