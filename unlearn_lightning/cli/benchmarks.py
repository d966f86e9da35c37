"""A run's own model measured by tasks of the lm-evaluation-harness of EleutherAI: stacked adapters, 4-bit or whole weights.

    evaluate([Path("runs/forgotten")], ["gsm8k", "wmdp_bio"], Setting(limit=100))

Each task is a probe of its own, named lm_eval_TASK: its record in the run folder has the harness's numbers, their standard errors, the
number of examples, and the versions of the task and of the harness. What was measured with the same settings is not measured again.
"""

from __future__ import annotations

import copy
import difflib
import gc
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from unlearn_lightning.cli.built_model import loaded
from unlearn_lightning.records import Quantity, is_finished, locked, metric_key, read_run, read_study, record_path, write_json
from unlearn_lightning.records.places import place_of
from unlearn_lightning.runs.content import refuse_changed
from unlearn_lightning.runs.measured import MEASURED, known_probes, note_measured
from unlearn_lightning.runs.run_key import digest

PREFIX = "lm_eval_"
INSTALL = "`unlearn evaluate` needs the lm-evaluation-harness: pip install 'unlearn_lightning[benchmarks]' (or pip install lm_eval)."


@dataclass(frozen=True)
class Setting:
    """How tasks are asked.

    Args:
        limit: only the first examples of each task; null for all.
        num_fewshot: solved examples before each question; null for the task's own number.
        batch_size: examples at once; the same result to rounding.
        apply_chat_template: ask by the model's chat template.
        include_path: a folder with tasks of one's own.
    """

    limit: int | None = None
    num_fewshot: int | None = None
    batch_size: int = 8
    apply_chat_template: bool = False
    include_path: Path | None = None

    def key(self, task: str) -> str:
        """What identifies a task's numbers: all that decides them but the model, and the files of one's own tasks by their content."""
        own = self.include_path
        files = {str(path.relative_to(own)): _sha256(path) for path in sorted(own.rglob("*")) if path.is_file()} if own else {}
        return digest([task, self.limit, self.num_fewshot, self.apply_chat_template, files, version("lm_eval")])


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def runs_in(place: Path, kind: str = "unlearn") -> list[Path]:
    """The finished runs that a place is or holds: a run folder, a study, or a folder of runs.

    Args:
        place: the folder.
        kind: `unlearn`, `stage` or `all`, of a folder's runs; a run that is named itself is of any kind.

    Raises:
        ValueError: there is none.
    """
    if (place / "run.json").is_file():
        if not is_finished(place):
            raise ValueError(f"{place} holds no finished run, so there is no result to measure: the command that began it ends it.")
        return [place]
    if (place / "study.json").is_file():
        folders = [place_of(place, entry) for entry in read_study(place)["runs"]]
    else:
        folders = sorted(path.parent for path in place.glob("*/run.json"))
    found = [folder for folder in dict.fromkeys(folders) if is_finished(folder) and kind in ("all", read_run(folder)["kind"])]
    if found:
        return found
    if (place / "config.json").is_file():
        raise ValueError(
            f"{place} is a model and no run: the harness measures it by itself, `lm_eval --model hf --model_args pretrained={place}`."
        )
    raise ValueError(f"{place} holds no finished run of the kind {kind}. Name a run folder, a study, or a folder of runs.")


def evaluate(folders: Sequence[Path], tasks: Sequence[str], setting: Setting, start: bool = False) -> None:
    """Measures what the runs have no records of, and prints a line for each number.

    Args:
        folders: of finished runs.
        tasks: names of the harness's tasks or groups.
        setting: how they are asked.
        start: measure the model that each run began with as well.

    Raises:
        ImportError: the harness is not installed.
        ValueError: it has no such task, or a run's result was changed.
    """
    manager = _task_manager(tasks, setting.include_path)
    for folder in folders:
        if read_run(folder)["kind"] != MEASURED:
            refuse_changed(folder)
        end = int(read_run(folder)["steps"] or 0)
        for step in sorted({0, end} if start else {end}):
            todo = [task for task in tasks if not _is_there(folder, task, setting, step)]
            if done := [task for task in tasks if task not in todo]:
                print(f"{folder}, step {step}: measured already with these settings: {', '.join(done)}.")
            if todo:
                with locked(folder):
                    _measure(folder, todo, setting, step, step == end, manager)


def _is_there(folder: Path, task: str, setting: Setting, step: int) -> bool:
    known = known_probes(folder).get(PREFIX + task)
    return known is not None and known["key"] == setting.key(task) and record_path(folder, PREFIX + task, step).is_file()


def _task_manager(tasks: Sequence[str], own: Path | None) -> Any:
    """The harness's list of tasks, which holds all that are named; its own thousands are read only where a name is none of one's own."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise ImportError(INSTALL) from error
    if own is not None and not own.is_dir():
        raise FileNotFoundError(f"--include_path: there is no folder {own}.")
    include = str(own) if own else None
    manager = TaskManager(include_path=include, include_defaults=own is None)
    if own and set(tasks) - set(manager.all_tasks):
        manager = TaskManager(include_path=include)
    for task in tasks:
        if task in manager.all_tags:
            raise ValueError(f"--tasks: {task} is a tag, a list of tasks without a number of its own: name its tasks (`lm_eval ls tags`).")
        if task not in manager.all_tasks:
            near = difflib.get_close_matches(task, manager.all_tasks, n=3)
            hint = f" Did you mean {', '.join(near)}?" if near else ""
            raise ValueError(
                f"--tasks: the lm-evaluation-harness {version('lm_eval')} has no task {task!r}.{hint} `lm_eval ls tasks` lists all."
            )
    return manager


def _measure(folder: Path, tasks: Sequence[str], setting: Setting, step: int, is_end: bool, manager: Any) -> None:
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    # It warns that a model which is loaded already keeps its own settings, which is what is wanted here.
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    net, tokenizer, date = loaded(folder, is_end)
    # The harness pads on another side and may choose another padding token; the tokenizer is shared with the rest of the process.
    model = HFLM(
        pretrained=net, tokenizer=copy.deepcopy(tokenizer), batch_size=setting.batch_size, chat_template_args={"date_string": date}
    )  # fmt: skip
    # One by one, as the harness takes no task beside a group that it is a part of, and what is measured is kept if a later one fails.
    for task in tasks:
        found = simple_evaluate(
            model=model, tasks=[task], num_fewshot=setting.num_fewshot, limit=setting.limit, task_manager=manager,
            apply_chat_template=setting.apply_chat_template, log_samples=True,
        )  # fmt: skip
        assert found is not None, "the harness gives results to the first process, which is the only one"
        record = _record(task, found, setting, step)
        if former := _former(folder, task, setting):
            print(f"{folder}: {task} was measured with other settings before; those records are replaced.")
            for path in former:
                path.unlink()
        write_json(record_path(folder, PREFIX + task, step), record)
        note_measured(folder, {PREFIX + task: setting.key(task)})
        for key, value in record["metrics"].items():
            error = record["stderr"].get(key)
            beside = "" if error is None else f" ± {error:.4g}"
            print(f"{folder}, step {step}: {key} {value:.4g}{beside} (standard error; n = {record['n']})")
    del model, net
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _former(folder: Path, task: str, setting: Setting) -> list[Path]:
    known = known_probes(folder).get(PREFIX + task)
    return sorted(record_path(folder, PREFIX + task, 0).parent.glob("*.json")) if known and known["key"] != setting.key(task) else []


def _record(task: str, found: Mapping[str, Any], setting: Setting, step: int) -> dict[str, Any]:
    """What lies in the run folder: the task's numbers, and those of each example and of each part of a group."""
    probe = PREFIX + task
    parts = sorted(_parts(task, found))
    each = {part: {title: value for _, title, value, _ in _numbers(found["results"][part])} for part in parts if part != task}
    better = found.get("higher_is_better", {}).get(task) or {}
    metrics: dict[str, float] = {}
    stderr: dict[str, float] = {}
    quantities: dict[str, Any] = {}
    for metric, title, value, error in _numbers(found["results"][task]):
        key = metric_key(probe, title.replace(", ", "."))
        metrics[key] = value
        if error is not None:
            stderr[key] = error
        way = better.get(metric)
        direction: Any = None if way is None else "higher" if way else "lower"
        quantities[key] = Quantity(f"{task}: {title}", "share" if metric.startswith(("acc", "exact_match")) else "", direction).as_json()
    if not metrics:
        # A group without a number of its own stands for its parts.
        metrics = {metric_key(probe, f"{part}.{title}"): value for part, values in each.items() for title, value in values.items()}
    samples = found.get("samples") or {}
    counts = found.get("n-samples") or {}
    rows = [_row(part, sample) for part in parts for sample in samples.get(part, [])]
    return {
        "probe": probe, "class": "lm_eval", "step": step, "metrics": metrics, "quantities": quantities, "answer_field": None,
        "task": task, "stderr": stderr, "n": sum(int(counts.get(part, {}).get("effective", 0)) for part in parts),
        "task_version": found.get("versions", {}).get(task), "lm_eval_version": version("lm_eval"),
        "num_fewshot": found.get("n-shot", {}).get(task, setting.num_fewshot), "limit": setting.limit,
        "apply_chat_template": setting.apply_chat_template,
        "parts": each,
        "examples": rows,
    }  # fmt: skip


def _numbers(results: Mapping[str, Any]) -> Iterator[tuple[str, str, float, float | None]]:
    """Metric, title, value and standard error of a task; the harness names them `acc,none` and `acc_stderr,none`."""
    for name, value in results.items():
        metric, comma, way = name.partition(",")
        if not comma or metric.endswith("_stderr") or isinstance(value, bool) or not isinstance(value, int | float):
            continue
        error = results.get(f"{metric}_stderr,{way}")
        yield metric, metric if way == "none" else f"{metric}, {way}", float(value), error if isinstance(error, float) else None


def _parts(task: str, found: Mapping[str, Any]) -> set[str]:
    """The tasks that a group is made of, whatever groups lie between; a task is its only part."""
    below = (found.get("group_subtasks") or {}).get(task) or []
    return {part for one in below for part in _parts(one, found)} if below else {task}


def _row(part: str, sample: Mapping[str, Any]) -> dict[str, Any]:
    """One example by its number, with its values; the benchmark's texts stay where they are."""
    values = {name: sample[name] for name in sample.get("metrics", []) if isinstance(sample.get(name), int | float)}
    way = sample.get("filter", "none")
    return {"id": f"{part}/{sample['doc_id']}" + ("" if way == "none" else f"/{way}"), **values}
