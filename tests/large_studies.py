"""Writes large synthetic studies for the report: many paths, or many variants of an objective.

.venv/bin/python tests/large_studies.py FOLDER --paths 60 --objectives 3      # then: unlearn report FOLDER
.venv/bin/python tests/large_studies.py FOLDER --variants 500
"""

from __future__ import annotations

import argparse
import random
from pathlib import Path

from test_report_study_data import StudyWriter

STEPS = (0, 4, 8, 12, 16)


def many_paths(folder: Path, paths: int, objectives: int) -> Path:
    """A study of one seed with paths that have names, and the objectives a, b, c ... on each; returns its folder."""
    writer, draw = StudyWriter(folder), random.Random(0)
    writer.retrained(1, {"safety-1": [-1.0, -2.0]})
    for number in range(paths):
        for objective in (f"objective{i}" for i in range(objectives)):
            curve = {step: -0.1 - step * draw.uniform(0.1, 0.5) for step in STEPS}
            vectors = {step: {"safety-1": [draw.uniform(-9, -1), draw.uniform(-9, -1)]} for step in STEPS}
            # Each path has a name of its own, and a position of the forget stage that others share.
            run = writer.unlearn(1, number % 4 + 1, objective, curve, tofu=curve, vectors=vectors, more_tags={"path_name": f"path{number}"})
            _rename(writer, run, f"seed1/path{number}/{objective}")
    return writer.write()


def many_variants(folder: Path, variants: int) -> Path:
    """A study of two paths and one objective in many variants, by learning rate and beta; returns its folder."""
    writer, draw = StudyWriter(folder), random.Random(0)
    writer.retrained(1, {"safety-1": [-1.0, -2.0]})
    for number in range(variants):
        tags = {"objective": "npo", "lr": round(1e-5 * (1 + number // 20), 6), "beta": round(0.1 + 0.05 * (number % 20), 2)}
        for p in (1, 4):
            curve = {step: -0.1 - step * draw.uniform(0.1, 0.5) for step in STEPS}
            vectors = {step: {"safety-1": [draw.uniform(-9, -1), draw.uniform(-9, -1)]} for step in STEPS}
            writer.unlearn(1, p, f"npo-{number}", curve, tofu=curve, vectors=vectors, more_tags=tags)
    return writer.write()


def _rename(writer: StudyWriter, run: Path, name: str) -> None:
    """Gives the run that was written last another name, and so another folder."""
    entry, key = writer.content["runs"][-1], name.replace("/", "-")
    entry |= {"key": key, "folder": f"../store/{key}", "name": name}
    run.rename(run.with_name(key))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--paths", type=int, default=60)
    parser.add_argument("--objectives", type=int, default=3)
    parser.add_argument("--variants", type=int, default=0)
    options = parser.parse_args()
    large = (
        many_variants(options.folder, options.variants)
        if options.variants
        else many_paths(options.folder, options.paths, options.objectives)
    )
    print(large)
