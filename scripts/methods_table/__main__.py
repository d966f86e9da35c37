"""The command: python -m scripts.methods_table rates, or table runs/demo_methods."""

import argparse
from pathlib import Path

import yaml

from scripts.methods_table.cost import costs
from scripts.methods_table.figure import heat_map
from scripts.methods_table.ladder import chosen, with_rates, write_ladder
from scripts.methods_table.page import methods_block
from scripts.methods_table.rows import rows_of
from scripts.study_results.table_file import put, read, write

ROOT = Path(__file__).parents[2]
STUDY, LADDER = ROOT / "configs" / "studies" / "demo_methods.yaml", Path("runs/demo_methods_rates")
STORE = Path("runs/store")
CSV, PAGE, FIGURE = (ROOT / "docs" / name for name in ("data/demo_methods.csv", "methods.md", "methods.png"))


def rates() -> None:
    """Writes the ladder as a study or, where that is done, the chosen rates into the study's file."""
    if not (LADDER / "study.json").is_file():
        file = LADDER.with_suffix(".yaml")
        write_ladder(STUDY, file)
        print(f"unlearn study {file} --jobs 1\nThen this command again.")
        return
    found = chosen(LADDER)
    STUDY.write_text(with_rates(STUDY.read_text(), found))
    for name, one in found.items():
        why = "" if one.reached else ", which is not enough: the rule's second part"
        print(f"{name}: {one.rate:g}, label drop {one.drop:.2f} nats, retention {one.retention:.2f}{why}")


def table(study: Path, keep_costs: bool = False) -> None:
    """Writes the CSV, the page's tables and the figure."""
    made_with, rows = rows_of(study)
    made_with["costs"] = (
        read(CSV)[0]["costs"] if keep_costs else ", ".join(f"{name}={cost:.2f}" for name, cost in costs(STUDY, STORE).items())
    )
    made_with["rates"] = ", ".join(f"{name}={rate:g}" for name, rate in _rates(study).items())
    write(CSV, made_with, rows)
    content = read(CSV)
    PAGE.write_text(put(PAGE.read_text(), study.name, methods_block(*content)))
    heat_map(content[1]).savefig(FIGURE, dpi=150, metadata={"Software": None})
    print(f"{CSV}, {FIGURE} and {PAGE}, between the markers of {study.name}.")


def _rates(study: Path) -> dict[str, float]:
    objectives = yaml.safe_load((study / "study.yaml").read_text())["objectives"]
    named = {name: one for name, one in objectives.items() if one}
    return {name: one["model"]["init_args"]["optimizer"]["init_args"]["lr"] for name, one in named.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/methods")
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("rates", help=rates.__doc__)
    tables = verbs.add_parser("table", help=table.__doc__)
    tables.add_argument("study", type=Path)
    tables.add_argument("--keep-costs", action="store_true", help="Do not measure costs per step again, but keep those of the CSV.")
    given = parser.parse_args()
    table(given.study, given.keep_costs) if given.verb == "table" else rates()
