"""The size of real work: plans of thousands of runs, files of 200,000 lines, reports of a thousand runs, a million rows of metrics.csv.

Each case is a process of its own, from its start to its end, so that imports count. Wall time depends on what else runs: read the CPU
seconds beside it, and the load that the note names.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from scripts.benchmarks.measure import Result

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "configs" / "studies" / "demo.yaml"
UNLEARN = [sys.executable, "-m", "unlearn_lightning.main"]
LINES, ROWS = 200_000, 1_000_000
WORDS = ("the", "a", "river", "stone", "harbour", "walks", "slowly", "under", "seven", "lanterns", "before", "winter", "nobody", "counts")


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds on the wall and of CPU, and its peak resident memory in MB."""

    wall: float
    cpu: float
    memory: float


def size() -> list[Result]:
    """All cases, one after another, in a temporary folder."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        return [*_plans(folder), *_lines(folder), *_reports(folder), *_metrics(folder)]


def cost(command: list[str], folder: Path) -> Cost:
    """Runs a command and says what it took.

    Raises:
        RuntimeError: it failed; the message holds the end of what it said.
    """
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "UNLEARN_CACHE": str(folder / "cache"), "WANDB_MODE": "disabled"}
    environment.pop("TOKENIZERS_PARALLELISM", None)  # Both cores make tokens, as they do for a user.
    started = time.time()
    with (folder / "said.txt").open("w") as said:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(command)} failed: {(folder / 'said.txt').read_text()[-800:]}")
    return Cost(time.time() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def within(before: str, work: str, folder: Path) -> Cost:
    """What one piece of work takes in a process that has run `before`: seconds, and the growth of its peak memory."""
    told = (
        "import json, resource, time; usage = lambda: resource.getrusage(resource.RUSAGE_SELF); "
        f"{before}; first = usage(); started = time.time(); {work}; wall = time.time() - started; last = usage(); "
        "cpu = last.ru_utime + last.ru_stime - first.ru_utime - first.ru_stime; "
        "json.dump([wall, cpu, (last.ru_maxrss - first.ru_maxrss) / 1024], open('took.json', 'w'))"
    )
    cost([sys.executable, "-c", told], folder)
    return Cost(*json.loads((folder / "took.json").read_text()))


def large_study(seeds: int, variants: int) -> dict[str, object]:
    """The demo's four paths with `variants` of NPO: 13 + 4 x variants runs a seed."""
    settings: dict[str, object] = yaml.safe_load(DEMO.read_text())
    rates = [round(1e-6 * 1.1**number, 12) for number in range(variants)]
    objectives = {
        f"npo_{i}": {"model": {"class_path": "NPO", "init_args": {"beta": 0.1, "optimizer": {"init_args": {"lr": rate}}}}}
        for i, rate in enumerate(rates)
    }
    return settings | {"name": "large", "seeds": list(range(seeds)), "objectives": objectives}


def write_lines(path: Path, count: int = LINES) -> None:
    """JSON lines of a prompt and a response, about 200 tokens each with the shipped model's tokenizer."""
    draw = random.Random(0)
    with path.open("w") as file:
        for number in range(count):
            prompt, response = (" ".join(draw.choices(WORDS, k=length)) for length in (15, 75))
            file.write(json.dumps({"prompt": f"{number}: {prompt}?", "response": f"{response}."}) + "\n")


def _results(what: str, case: str, found: Cost, wall: float, memory: float) -> list[Result]:
    note = f"{found.cpu:.3g} s of CPU; load {os.getloadavg()[0]:.2g} at its end"
    return [
        Result(what, "a bound", case, "s", found.wall, None, found.wall, wall, True, note),
        Result(f"{what}, memory", "a bound", case, "MB", found.memory, None, found.memory, memory, True),
    ]


def _plans(folder: Path) -> list[Result]:
    results = []
    for seeds, variants, wall in ((1, 120, 20.0), (10, 122, 20.0)):
        file = folder / f"large{seeds}.yaml"
        file.write_text(yaml.safe_dump(large_study(seeds, variants)))
        found = cost([*UNLEARN, "study", str(file), "--plan", "--folder", str(folder / f"plan{seeds}")], folder)
        results += _results("study --plan", f"{seeds * (13 + 4 * variants):,} runs", found, wall, 400)
    return results


def _lines(folder: Path) -> list[Result]:
    write_lines(folder / "lines.jsonl")
    fit = [*UNLEARN, "fit", "-c", str(ROOT / "configs/stages/safety.yaml"), "-c", str(ROOT / "configs/backbones/tiny-llama.yaml")]
    fit += ["--data", "ChatStage", "--data.source", "lines.jsonl", "--data.held_out_examples", "0", "--trainer.callbacks", "null"]
    # Small batches, as the memory is to be that of the data and not of a step.
    fit += ["--data.batch_size", "8", "--trainer.max_steps", "1", "--trainer.logger", "false"]
    results = []
    for turn, wall in (("first", 60.0), ("second", 20.0)):
        found = cost([*fit, "--run_folder", turn], folder)
        results += _results("fit for one step", f"{LINES:,} JSON lines, the {turn} time", found, wall, 800)
    before = (
        "from unlearn_lightning.data import ChatStage; from unlearn_lightning.models.backbone import Backbone; "
        "tokenizer = Backbone('builtin:tiny-llama').load_tokenizer(); stage = ChatStage('lines.jsonl', held_out_examples=0)"
    )
    # The command's own stage has a seed and batches of its own, which tokens do not depend on.
    found = within(before, "stage.fingerprint(), stage.training_examples(tokenizer)", folder)
    return [*results, *_results("tokens ready, beyond the imports", f"{LINES:,} JSON lines, the second time", found, 2, 200)]


def _reports(folder: Path) -> list[Result]:
    results = []
    for name, options, case in (
        ("paths", ["--paths", "60"], "181 runs of 60 paths"),
        ("variants", ["--variants", "500"], "1,001 runs of 500 variants"),
    ):
        cost([sys.executable, str(ROOT / "tests" / "large_studies.py"), str(folder / name), *options], folder)
        found = cost([*UNLEARN, "report", str(folder / name / "study")], folder)
        page = (folder / name / "study" / "report" / "index.html").stat().st_size / 2**20
        results += _results("report", case, found, 20, 600)
        results.append(Result("report, page", "a bound", case, "MB", page, None, page, 3, True))
    return results


def _metrics(folder: Path) -> list[Result]:
    path = folder / "metrics.csv"
    with path.open("w") as file:
        file.write("step,train/loss,train/lr\n")
        file.writelines(f"{step},0.123456789,0.0001\n" for step in range(ROWS))
    before = "from pathlib import Path; from unlearn_lightning.runs.metrics_file import MetricsFile"
    found = within(before, f"MetricsFile(Path('metrics.csv')).keep({ROWS - 10})", folder)
    return _results("a resumed run's metrics.csv, beyond the imports", f"{ROWS:,} rows", found, 2, 200)
