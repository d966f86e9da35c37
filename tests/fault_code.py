"""Faults of use, continued: probes and sections that somebody else wrote, and that fail or give nonsense.

As in tests/fault_cases.py, every case ends in one word; scripts/faults does them all and tests/test_faults.py a short selection.
"""

import importlib
import sys

from forked import Forked
from study_runs import fit, settings

from unlearn_lightning.cli.errors import line
from unlearn_lightning.main import main

PROBE = """
from callbacks.probe import Probe, Quantity, metric_key
{top}
class Faulty(Probe):
    probe_name = "faulty"
    quantities = {{"x": Quantity("x", "nats")}}
    def __init__(self, **more):
        {init}
        super().__init__(**more)
    def check(self, pl_module):
        {check}
    def predict(self, pl_module, examples, encoded, seed):
        {predict}
        return [{{"x": 1.0}} for _ in encoded]
    def metrics(self, rows):
        {metrics}
        return {{metric_key(self.name, "x"): sum(row["x"] for row in rows) / len(rows)}}
"""
BOOM = 'raise {error}("boom")'
# What goes wrong -> where in the file above, and the code.
CODE = {
    **{f"{error} {where}": (part, BOOM.format(error=error))
       for part, where in (("top", "at import"), ("init", "when made"), ("check", "at its check"), ("predict", "in predict"),
                           ("metrics", "in metrics"))
       for error in ("RuntimeError", "KeyError", "AttributeError", "ValueError", "ZeroDivisionError")},
    "does not parse": ("top", "def broken(:"),
    "imports what is not there": ("top", "import nothing_of_this_name"),
    "ends the process": ("top", "raise SystemExit(0)"),
    "gives no rows": ("predict", "return []"),
    "gives a row too many": ("predict", "return [{'x': 1.0}] * (len(encoded) + 1)"),
    "gives None": ("predict", "return None"),
    "gives numbers for rows": ("predict", "return [1.0 for _ in encoded]"),
    "gives tensors": ("predict", "import torch; return [{'x': torch.tensor(1.0)} for _ in encoded]"),
    "gives NaN": ("predict", "return [{'x': float('nan')} for _ in encoded]"),
    "gives infinity": ("metrics", "return {metric_key(self.name, 'x'): float('inf')}"),
    "gives None for metrics": ("metrics", "return None"),
    "gives a text for a metric": ("metrics", "return {metric_key(self.name, 'x'): 'much'}"),
    "gives a hostile name": ("metrics", "return {'../x\\x1b[31m': 1.0}"),
    "gives a vector for a metric": ("metrics", "return {metric_key(self.name, 'x'): [1.0, 2.0]}"),
}  # fmt: skip


def code_cases(folder, runs):
    """(kind, outcome, what was said): a probe of somebody else's that fails or gives nonsense; a run that ends well counts as harmless."""
    files = str(runs / "corpus.jsonl"), str(runs / "questions.jsonl")
    folder.mkdir(parents=True, exist_ok=True)
    sys.path.insert(0, str(folder))
    try:
        for number, (kind, (part, code)) in enumerate(CODE.items()):
            module = f"faulty_code_{number}"
            parts = {**dict.fromkeys(("top", "init", "check", "predict", "metrics"), "pass"), part: code}
            (folder / f"{module}.py").write_text(PROBE.format(**parts))
            probe = {"class_path": f"{module}.Faulty", "init_args": {"limit": 3}}
            try:
                fit(settings(*files, folder / module, trainer={"max_steps": 1, "callbacks": [probe]}))
                yield f"a probe {kind}", "harmless", ""
            except (Exception, SystemExit) as error:
                said = line(error)
                named = any(word in said for word in (module, "Faulty", "faulty"))
                yield f"a probe {kind}", "named" if named and len(said) < 1500 else "crash", f"{type(error).__name__}: {said}"
    finally:
        sys.path.remove(str(folder))


SECTION = """
from unlearn_lightning.report.section import Section
{top}
class FaultySection(Section):
    place, heading, caption = 50, "Faulty", "x"
    def __init__(self, *given):
        super().__init__(*given)
        {made}
    def blocks(self):
        {blocks}
        return []
    def problems(self):
        {problems}
        return []
"""
SECTIONS = {
    **{f"{error} {part}": (part, BOOM.format(error=error)) 
       for part in ("made", "blocks", "problems") for error in ("RuntimeError", "KeyError")},
    "gives None for blocks": ("blocks", "return None"),
    "gives texts for blocks": ("blocks", "return ['x']"),
}  # fmt: skip


def section_cases(folder, runs):
    """(kind, outcome, what was said): a section of somebody else's that fails; the report is made without it and names it."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, (kind, (part, code)) in enumerate(SECTIONS.items()):
        module = f"faulty_section_{number}"
        parts = {**dict.fromkeys(("top", "made", "blocks", "problems"), "pass"), part: code}
        (folder / f"{module}.py").write_text(SECTION.format(**parts))

        def work(module=module):
            sys.path.insert(0, str(folder))
            importlib.import_module(module)
            return main(["report", str(runs / "whole"), "--out", str(folder / module)])

        process = Forked(work)
        status, said = process.wait(), process.stdout() + process.stderr()
        named = any(word in said for word in (module, "FaultySection")) and "not foreseen" not in said
        page = (folder / module / "index.html").is_file()
        yield f"a section, {kind}", "named" if named and page and not status else "crash", f"{status} {said[-400:]}"
