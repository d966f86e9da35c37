"""The pages that hold numbers of studies, and what each has of a study: a CSV of every seed, and tables made of this CSV alone."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from scripts.study_results.depth import COMPARED_DEPTHS, depth_texts, measured_depth
from scripts.study_results.measured import Row, measured
from scripts.study_results.table_file import block, origin
from scripts.study_results.twins import COMPARED
from scripts.study_results.variants import COMPARED_VARIANTS, measured_variants, variants_texts

DOCS = Path(__file__).parents[2] / "docs"


class Page(NamedTuple):
    """A page of docs/.

    Attributes:
        name: of its file.
        data: the folder of its CSV files, from docs/.
        measured: reads a study's folder.
        block: writes what stands between the markers, from the study's name and the CSV.
        compared: the quantities that are compared with a twin's.
        figures: the keys of the report's figures of which the first that a study has is copied beside the page.
    """

    name: str
    data: str
    measured: Callable[[Path], tuple[dict[str, str], list[Row]]]
    block: Callable[[str, dict[str, str], Sequence[Row]], str]
    compared: Collection[str] = COMPARED
    figures: tuple[str, ...] = ()

    def csv(self, study: str) -> Path:
        """The file with a study's numbers."""
        return DOCS / self.data / f"{study}.csv"

    def figure(self, study: Path) -> Path | None:
        """The figure of the study's report that belongs to the page; None without one."""
        found = [file for key in self.figures for file in sorted((study / "report" / "figures").glob(f"{key}.png"))]
        return found[0] if found else None


def _block(page: str, data: str, texts: Callable[[dict[str, str], Sequence[Row]], list[str]]) -> Callable[..., str]:
    def written(name: str, made_with: dict[str, str], rows: Sequence[Row]) -> str:
        head = origin(f"runs/{name} --page docs/{page}", f"{data}/{name}.csv", made_with, rows)
        return "\n".join([head, *texts(made_with, rows)])

    return written


PAGES = {
    page.name: page
    for page in (
        Page("results.md", "data", measured, block),
        Page(
            "reproduce.md", "data/reproduce", measured_variants, _block("reproduce.md", "data/reproduce", variants_texts),
            COMPARED_VARIANTS, ("further_stages", "label_by_*", "label"),
        ),
        Page(
            "superficial.md", "data/superficial", measured_depth, _block("superficial.md", "data/superficial", depth_texts),
            COMPARED_DEPTHS, ("families",),
        ),
    )
}  # fmt: skip
