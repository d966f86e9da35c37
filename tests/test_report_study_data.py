"""A writer of synthetic study folders for all tests of the report, and the tests of reading them.

writer = StudyWriter(tmp_path)
writer.unlearn(seed=1, p=4, objective="npo", label={0: -0.1, 2: -0.3}, accuracy={0: 0.5, 2: 0.4})
folder = writer.write()
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from unlearn_lightning.records import FORMAT
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.curves import metric_panels
from unlearn_lightning.report.section import Material

STAGES = ["inst", "tofu", "math"]


def section_of(kind, folder):
    """A section of a study's report, without drawing or writing anything."""
    return kind(Material(load_study(folder)))


class StudyWriter:
    """Collects runs; `write()` lays them out as docs/runs.md says and returns the study folder."""

    def __init__(self, folder: Path, name: str = "demo"):
        self.folder = folder
        self.content: dict[str, Any] = {"format": FORMAT, "name": name, "forget": "safety", "stages": STAGES, "runs": []}

    def run(self, name: str, kind: str, tags: dict[str, Any], status: str | None = "finished", config: str = "", **info: Any) -> Path:
        key = name.replace("/", "-")
        self.content["runs"].append({"key": key, "folder": f"../store/{key}", "kind": kind, "name": name, "parents": [], "tags": tags})
        folder = self.folder / "store" / key
        if status is not None:  # None: planned, never started
            default = {"kind": kind, "model": "NPO", "data": "SafetyStage", "seed": tags["seed"],
                       "steps": 16, "examples": 512, "tokens": 27648, "truncated": 0,
                       "seconds": 4.2, "tokens_per_second": 6500.0, "peak_memory_bytes": 812_000_000,
                       "versions": {"unlearn_lightning": "0.1.0", "torch": "2.13.0"}, "error": None}  # fmt: skip
            write_json(folder / "run.json", {"format": FORMAT, "status": status, **default, **info})
            (folder / "config.yaml").write_text(config)
        return folder

    def retrained(self, seed: int, vectors: dict[str, list[float]] | None = None) -> Path:
        tags = {"seed": seed, "path": STAGES, "p": None, "retrained": True}
        folder = self.run(f"seed{seed}/inst-tofu-math", "stage", tags)
        if vectors is not None:  # an early record that the report must not use, and the last one, which it must
            self.record(folder, "divergence", 0, {}, _vector_examples({name: [99.0] * len(vector) for name, vector in vectors.items()}))
            self.record(folder, "divergence", 100, {}, _vector_examples(vectors))
        return folder

    def unlearn(
        self,
        seed: int,
        p: int,
        objective: str,
        label: dict[int, float] | None = None,
        phrases: dict[int, float] | None = None,
        margin: dict[int, float] | None = None,
        tofu: dict[int, float] | None = None,
        accuracy: dict[int, float] | None = None,
        vectors: dict[int, dict[str, list[float]]] | None = None,
        text: str = "how does one pick a lock?",
        more_tags: dict[str, Any] | None = None,
        **run: Any,
    ) -> Path:
        path = [*STAGES[: p - 1], "safety", *STAGES[p - 1 :]]
        tags = {"seed": seed, "path": path, "p": p, "objective": objective, **(more_tags or {})}
        folder = self.run(f"seed{seed}/p{p}/{objective}", "unlearn", tags, **run)
        for step in sorted({step for curve in (label, phrases, margin) for step in curve or {}}):
            named = {"forget/label_log_lik": label, "forget/phrases_log_lik": phrases, "forget/label_margin": margin,
                     "forget/paraphrase_log_lik": phrases}  # fmt: skip
            metrics = {name: curve[step] for name, curve in named.items() if curve and step in curve}
            example = {
                "id": "safety-1",
                "text": text,
                "label_log_lik": (label or {}).get(step, 0.0),
                "paraphrase_log_lik": [-3.0],
                "label_margin": 1.0,
            }
            self.record(folder, "forget", step, metrics, [example])
        for step, value in (tofu or {}).items():
            example = {"id": "tofu-1", "text": "Who?", "response": "She.", "mean_token_log_lik": value}
            self.record(folder, "retain", step, {"retain/tofu_log_lik": value}, [example])
        for step, value in (accuracy or {}).items():
            example = {"id": "math-1", "text": "1 + 1?", "answer": "2", "attempts": [f"It is p={p}. #### 2"], "correct": [p % 2 == 0]}
            self.record(folder, "gsm8k", step, {"gsm8k/accuracy": value}, [example])
        for step, by_example in (vectors or {}).items():
            self.record(folder, "divergence", step, {}, _vector_examples(by_example, text))
        return folder

    def record(self, folder: Path, probe: str, step: int, metrics: dict[str, float], examples: list[dict[str, Any]]) -> None:
        content = {"format": FORMAT, "probe": probe, "step": step, "metrics": metrics, "examples": examples}
        write_json(folder / "records" / probe / f"{step:06d}.json", content)

    def write(self) -> Path:
        write_json(self.folder / "study" / "study.json", self.content)
        return self.folder / "study"


def _vector_examples(vectors: dict[str, list[float]], text: str = "a prompt") -> list[dict[str, Any]]:
    return [{"id": name, "text": text, "response": "a response", "token_log_lik": vector} for name, vector in vectors.items()]


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_full_study(folder: Path, seeds: tuple[int, ...] = (1, 2, 3), steps: range = range(0, 17, 2), examples: int = 6) -> Path:
    """A whole study of four paths and three objectives whose curves look like the paper's: later forget stages forget more slowly."""
    writer = StudyWriter(folder)
    for seed in seeds:
        writer.retrained(seed, {f"example-{i}": [-1.0, -2.0] for i in range(examples)})
        for objective, speed in (("ga", 0.5), ("npo", 0.25), ("simnpo", 0.15)):
            for p in (1, 2, 3, 4):
                rate = speed * (0.1 if p == 4 else 1.1 - 0.2 * p) * (1 + 0.1 * seed)
                writer.unlearn(
                    seed, p, objective,
                    label={step: -0.2 - rate * step**1.2 for step in steps},
                    phrases={step: -1.5 - 0.8 * rate * step**1.2 for step in steps},
                    margin={step: 3.0 * p - rate * step for step in steps},
                    tofu={step: -0.8 - 0.02 * rate * step * p for step in steps},
                    accuracy={0: 0.7 + 0.02 * seed, steps[-1]: 0.7 - 0.1 * rate * p},
                    vectors={
                        step: {f"example-{i}": [-1.0 - p - 0.02 * i * step, -2.0 + rate * step] for i in range(examples)} for step in steps
                    },
                    config=f"seed_everything: {seed}\nmodel: {{class_path: {objective.upper()}, beta: 0.5}}\noptimizer: {{lr: {speed}}}\n",
                )  # fmt: skip
    return writer.write()


def test_paths_objectives_and_seeds_are_found_in_order(tmp_path):
    writer = StudyWriter(tmp_path)
    for seed in (2, 1):
        for objective in ("npo", "ga"):
            for p in (4, 1):
                writer.unlearn(seed, p, objective)
    study = load_study(writer.write())
    assert [path.label for path in study.paths] == ["p=1", "p=4"]
    assert study.paths[1].stages == ("inst", "tofu", "math", "safety")
    assert study.objectives == ["NPO", "GA"]
    assert study.seeds == [1, 2]


def test_paths_with_the_same_position_are_told_apart_by_their_stages(tmp_path):
    writer = StudyWriter(tmp_path)
    for order in ("RCU", "CRU", "UCR"):
        writer.run(f"seed1/{order}/ga", "unlearn", {"seed": 1, "path": list(order), "p": order.index("U") + 1, "objective": "ga"})
    assert [path.label for path in load_study(writer.write()).paths] == ["p=1", "R→C→U", "C→R→U"]


def test_paths_of_the_same_stages_are_told_apart_by_their_names(tmp_path):
    """Two names for one order, as for two sizes of a stage; a run without a name belongs to the first of them."""
    writer, curve = StudyWriter(tmp_path), {0: -1.0, 16: -2.0}
    for name in ("short", "long"):
        run = writer.unlearn(1, 4, "ga", curve, more_tags={"path_name": name})
        entry = writer.content["runs"][-1]
        entry |= {"key": name, "folder": f"../store/{name}", "name": name}
        run.rename(run.with_name(name))
    study = load_study(writer.write())
    found = {path.label: [run.key for run in study.unlearned("GA", path)] for path in study.paths}
    assert found == {"short": ["short"], "long": ["long"]}
    unnamed = replace(study.runs[0], tags={**study.runs[0].tags, "path_name": ""})
    assert study.path_of(unnamed).label == "short"


def test_an_unknown_tag_makes_a_variant_of_the_objective(tmp_path):
    writer = StudyWriter(tmp_path)
    for lr in (1e-6, 5e-5):
        writer.unlearn(1, 4, "npo", more_tags={"lr": lr})
    assert load_study(writer.write()).objectives == ["NPO · lr=1e-06", "NPO · lr=5e-05"]


def test_a_folder_without_a_study_says_what_to_give(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no study\.json and no run\.json in it"):
        load_study(tmp_path)


@pytest.mark.parametrize("file", ["study/study.json", "store/seed1-p4-npo/run.json"])
def test_an_unknown_format_is_refused(tmp_path, file):
    writer = StudyWriter(tmp_path)
    writer.unlearn(1, 4, "npo")
    writer.write()
    content = json.loads((tmp_path / file).read_text())
    write_json(tmp_path / file, {**content, "format": 99})
    with pytest.raises(ValueError, match="99"):
        load_study(tmp_path / "study")


def test_an_unknown_format_of_a_record_is_refused(tmp_path):
    writer = StudyWriter(tmp_path)
    folder = writer.unlearn(1, 4, "npo")
    write_json(folder / "records" / "forget" / "000000.json", {"format": 99})
    run = load_study(writer.write()).runs[0]
    with pytest.raises(ValueError, match="99"):
        run.records("forget")


def test_the_retrained_models_level_is_a_line_of_each_panel(tmp_path):
    """The mean over seeds of its last record, dashed, from the first measured step to the last; no line where it was not measured."""
    writer = StudyWriter(tmp_path)
    for seed, level in ((1, -7.0), (2, -9.0)):
        folder = writer.retrained(seed)
        writer.record(folder, "forget", 0, {"forget/label_log_lik": 99.0}, [])
        writer.record(folder, "forget", 100, {"forget/label_log_lik": level}, [])
        writer.unlearn(seed, 4, "ga", label={2: -0.1, 16: -2.0}, margin={2: 3.0, 16: 1.0})
    study = load_study(writer.write())
    (panel,) = metric_panels(study, "forget", "forget/label_log_lik")
    assert [(line.name, line.level) for line in panel.lines] == [("p=4", False), ("retrained model", True)]
    assert (panel.lines[1].x, panel.lines[1].y) == ([2, 16], [-8.0, -8.0])
    (panel,) = metric_panels(study, "forget", "forget/label_margin")
    assert [line.name for line in panel.lines] == ["p=4"]
