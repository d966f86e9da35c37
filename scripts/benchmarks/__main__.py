"""Every row of docs/performance.md, side by side in one run; prints a table and writes JSON and Markdown.

    python -m scripts.benchmarks                                    # all rows
    python -m scripts.benchmarks --rows '[scoring, steps]'          # some
    python -m scripts.benchmarks --rows '[gpu]' --threads 0         # on a GPU machine

Rows: scoring, steps (NPO, NPO's memory, cached reference, GA), padding, attempts (needs `pip install -e '.[benchmarks]'`), study,
overhead, scaling, size, smollm2 (needs
scripts/local_model), gpu.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib import import_module
from pathlib import Path

import torch

from scripts.benchmarks.measure import Result
from scripts.study_results.measured import commit
from scripts.study_results.table_file import put

ROWS = ("scoring", "steps", "padding", "attempts", "study", "overhead", "scaling", "size", "smollm2", "gpu")


PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


def machine() -> str:
    """Names the machine and the versions that the benchmarks ran on."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    names = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores, {torch.get_num_threads()} thread(s)"


def markdown(results: Sequence[Result]) -> str:
    """Renders the results as a table in Markdown."""
    lines = ["| what | against | case | ours | theirs | measured | target | met |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for r in results:
        theirs = "" if r.theirs is None else f"{r.theirs:.4g}"
        bound = "" if r.target is None else f"{'at most' if r.at_most else 'at least'} {r.target:g}"
        met = {None: "", True: "yes", False: "**no**"}[r.met]
        value = f"{r.ratio:.3f}" if r.at_most else f"{r.ratio:.2f}x" if r.theirs is not None else f"{r.ratio:.3f}"
        lines.append(f"| {r.what} | {r.against} | {r.case} | {r.ours:.4g} {r.quantity} | {theirs} | {value} | {bound} | {met} |")
    return "\n".join([*lines, *(f"\n{r.what}, {r.case}: {r.note}." for r in results if r.note)])


def main(rows: Sequence[str] = ROWS, threads: int = 1, out: str = "benchmark-results", docs: bool = False) -> None:
    """Runs benchmarks.

    Args:
        rows: which.
        threads: of PyTorch; 0 for its own choice. With 1, CPU seconds are the seconds of a quiet machine.
        out: folder for results.json and results.md; one file each row, so that rows can be run apart.
        docs: whether tables also go into docs/performance.md, between the markers of those rows that have some there.
    """
    os.environ.setdefault("WANDB_MODE", "disabled")
    if unknown := sorted(set(rows) - set(ROWS)):
        raise SystemExit(f"There is no row {unknown[0]!r}; there are {', '.join(ROWS)}.")
    if threads:
        torch.set_num_threads(threads)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        started = time.time()
        run: Callable[[], list[Result]] = getattr(import_module(f"scripts.benchmarks.{row}"), row)
        results = run()
        facts = {
            "row": row, "date": time.strftime("%Y-%m-%d"), "machine": machine(), "torch": torch.__version__,
            "seconds": round(time.time() - started, 1), "results": [{**asdict(r), "met": r.met} for r in results],
        }  # fmt: skip
        (folder / f"{row}.json").write_text(json.dumps(facts, indent=1) + "\n")
        (folder / f"{row}.md").write_text(markdown(results) + "\n")
        page = PAGE.read_text()
        if docs and f"<!-- results of {row} -->" in page:
            head = f"Written by `scripts/benchmark --rows '[{row}]' --docs true` at commit {commit()}: {facts['date']}, {machine()}.\n\n"
            PAGE.write_text(put(page, row, f"{head}{markdown(results)}\n"))
        print(
            f"\n{row}: {facts['date']}, {facts['machine']}, torch {facts['torch']}, {facts['seconds']} s\n\n{markdown(results)}", flush=True
        )


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False, description=__doc__)
