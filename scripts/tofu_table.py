"""python -m scripts.tofu_table runs/tofu_forget05_small ...: the metric table of TOFU studies, in docs/benchmarks.md between its markers.

The numbers are those of each study's report (report/tables/*.csv), after unlearning, and of the model that unlearning began with.
"""

import argparse
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path

from scripts.study_results.measured import made_with
from scripts.study_results.table_file import put
from unlearn_lightning.records import read_study

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
# Row of the page -> table of the report behind the name of the forget set's probes, the column that names its rows, what it says, and how
# the columns of its numbers begin.
QUANTITIES = {
    "probability of the forget set": ("probe_{forget}", "metric", "probability", ""),
    "ROUGE-L recall of the forget set": ("probe_{forget}_answers", "metric", "ROUGE-L recall", ""),
    "forget score of the truth ratio": ("probe_{forget}_truth", "metric", "forget score of the truth ratio", ""),
    "forget quality, p": ("forget_quality", "probe", "{forget}_truth", "p_"),
    "forget quality, log10 p": ("forget_quality", "probe", "{forget}_truth", "log10_"),
    "exact memorisation": ("probe_{forget}_memory", "metric", "exact memorisation", ""),
    "extraction strength": ("probe_{forget}_memory", "metric", "extraction strength", ""),
    "membership by Min-K%, AUC": ("membership", "attack", "Min-K%", "auc_"),
    "KL divergence from retrained, nats/token": ("probe_{forget}_distribution", "metric", "KL divergence from the retrained model", ""),
}
OF_MEMBERSHIP = {"the same of the retrained model": "retrained", "PrivLeak, %": "privleak"}


def table(study: Path) -> list[list[str]]:
    """The rows of one study: a quantity, before unlearning, and after it by each objective.

    Raises:
        FileNotFoundError: its report has no such table.
    """
    quality = _read(study, "forget_quality", "probe", None)
    forget = quality[0][1]["probe"].removesuffix("_truth")
    names = list(dict.fromkeys(run for run, _ in quality))
    found = [["", "before", *(name.partition(",")[0] for name in names)]]
    for title, (file, column, said, begin) in QUANTITIES.items():
        rows = [row for _, row in _read(study, file.format(forget=forget), column, said.format(forget=forget))]
        found.append([title, _number(rows[0][f"{begin}before"]), *(_number(row[f"{begin}after"]) for row in rows)])
        if file == "membership":
            found += [[more, "", *(_number(row[name]) for row in rows)] for more, name in OF_MEMBERSHIP.items()]
    return [*found, *_utility(study)]


def _utility(study: Path) -> Iterator[list[str]]:
    """Model utility's nine numbers, and it itself."""
    rows: dict[str, list[dict[str, str]]] = {}
    for _, row in _read(study, "model_utility", "run", None):
        rows.setdefault(f"{row['of']}: {row['quantity']}", []).append(row)
    for title, of_runs in rows.items():
        yield [title.removeprefix("all nine: "), _number(of_runs[0]["before"]), *(_number(row["after"]) for row in of_runs)]


def _read(study: Path, name: str, column: str, said: str | None) -> list[tuple[str, dict[str, str]]]:
    """The rows of a table of the report by the names of their runs, those alone in which a column says something."""
    with (study / "report" / "tables" / f"{name}.csv").open(encoding="utf-8") as file:
        return [(row["run"], row) for row in csv.DictReader(file) if said is None or row[column] == said]


def _number(text: str) -> str:
    return f"{float(text):.3g}" if text else "none"


def block(studies: Sequence[Path]) -> str:
    """What stands between the markers: a table for each study, and what made it."""
    parts = [f"Written by `scripts/tofu {' '.join(f'runs/{study.name}' for study in studies)}`.\n"]
    for study in studies:
        runs = read_study(study)["runs"]
        about = made_with(study)
        seeds = sorted({str(run["tags"]["seed"]) for run in runs})
        how = "; ".join(about[name] for name in ("processor", "versions", "runs"))
        parts.append(f"**{study.name}**, commit {about['commit']}, seed {', '.join(seeds)}; {how}:\n")
        head, *rows = table(study)
        lines = [head, ["---"] * len(head), *rows]
        parts.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    return "\n".join(parts)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="scripts/tofu")
    parser.add_argument("studies", nargs="+", type=Path, help="folders of finished studies, such as runs/tofu_forget05_small")
    given = parser.parse_args()
    PAGE.write_text(put(PAGE.read_text(encoding="utf-8"), "tofu", block(given.studies)), encoding="utf-8")
    print(f"{PAGE}, between the markers of tofu.")
