"""What the lm-evaluation-harness measured on the runs' models: value, standard error, number of examples, and versions."""

from collections.abc import Iterable
from pathlib import Path

from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Column, Number, Text
from unlearn_lightning.report.section import Section

PREFIX = "lm_eval_"
KINDS = ("unlearn", "measured", "stage")


class Benchmarks(Section):
    """A table with a row for each run, measured step and metric of `unlearn evaluate`."""

    place = 57
    heading = "General abilities by benchmarks"
    caption = (
        "Numbers of the lm-evaluation-harness on the runs' own models, with the harness's standard errors over examples. A task's number "
        "of shots and version decide what it means; compare equal ones only."
    )

    def blocks(self) -> Iterable[Block]:
        columns: list[Column] = [
            Text("run", rank=0), Number("step", digits=0, rank=1), Text("task", rank=0), Text("metric", rank=0), Number("value", rank=0),
            Number("standard error", "stderr", rank=0), Number("examples", "n", digits=0, rank=1), Number("shots", digits=0, rank=1),
            Text("chat template", rank=2), Text("task version", rank=2), Text("lm_eval", rank=2),
        ]  # fmt: skip
        table = Table("benchmarks", columns, on_terminal=True)
        for run in (run for kind in KINDS for run in self.study.finished(kind)):
            for probe in _probes(run.folder):
                for step, record in sorted(run.records(probe).items()):
                    asked = "yes" if record.get("apply_chat_template") else "no"
                    about = [
                        record.get("n"),
                        record.get("num_fewshot"),
                        asked,
                        _text(record.get("task_version")),
                        _text(record.get("lm_eval_version")),
                    ]
                    for metric, value in record["metrics"].items():
                        error = (record.get("stderr") or {}).get(metric)
                        table.add(run.name, step, record.get("task", probe), metric.rpartition("/")[2], value, error, *about)
        yield table


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _probes(folder: Path) -> list[str]:
    return sorted(place.name for place in (folder / "records").glob(f"{PREFIX}*") if place.is_dir())
