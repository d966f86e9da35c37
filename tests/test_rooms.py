"""The house itself: no circle of imports, no file that is too long to read, no room too full to survey."""

from graphlib import TopologicalSorter
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 300
ENTRIES = 18


def test_no_modules_import_one_another_in_a_circle():
    """Imports within functions and those for type checkers alone count, too. A circle is a CycleError that names its modules."""
    graph = grimp.build_graph("unlearn_lightning", "callbacks", cache_dir=None)
    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    assert "unlearn_lightning.loggers.report_upload" in imports["unlearn_lightning.report.command"]
    TopologicalSorter(imports).prepare()


@pytest.mark.parametrize("folder", ["unlearn_lightning", "callbacks", "scripts"])
def test_no_file_holds_two_nouns(folder):
    lengths = {str(file.relative_to(ROOT)): file.read_text().count("\n") for file in (ROOT / folder).rglob("*.py")}
    assert lengths
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_the_package_fits_a_screen():
    shown = [entry.name for entry in (ROOT / "unlearn_lightning").iterdir() if entry.name[0] not in "._"]
    assert len(shown) <= ENTRIES, sorted(shown)
