"""A finished run is measured on its saved models: what comes out is what the run itself would have recorded."""

import csv
import io

import pytest
from study_runs import fit, run_json, settings

from unlearn_lightning.cli.measuring import measure
from unlearn_lightning.records import read_json
from unlearn_lightning.runs.measured import delete_records

LORA = {"rank": 4, "alpha": 8}
NAMES = ("forget", "retain", "divergence", "gsm8k")


def probes(questions):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    more = {
        "ForgetLikelihood": {"label": "Sorry", "paraphrases": ["I must", "No, thank you"]},
        "GSM8KAccuracy": {"max_new_tokens": 4, "attempts": 2, "temperature": 1.0},
    }
    shared = {"data": data, "limit": 3, "every_n_steps": 0, "chunk_size": 2}
    return [
        {"class_path": name, "init_args": {**shared, **more.get(name, {})}}
        for name in ("ForgetLikelihood", "RetainLikelihood", "PathDivergence", "GSM8KAccuracy")
    ]


def base_of(make_backbone, folder):
    backbone = make_backbone()
    backbone.load_base().save_pretrained(folder)
    backbone.load_tokenizer().save_pretrained(folder)
    return str(folder)


# How each kind of run says what it starts from, and what it trains: (class, backbone settings, whether an earlier adapter lies below).
KINDS = {
    "full": ("NPO", {"lora": None}, False),
    "continued adapter": ("StageFineTuning", {"lora": LORA}, True),
    "adapter over a merged one": ("NPO", {"lora": LORA}, True),
    "adapter stacked over 4 bits": ("NPO", {"lora": LORA, "quantization": "nf4"}, True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_afterwards_is_what_the_run_itself_recorded(kind, corpus, questions, make_backbone, tmp_path):
    cls, backbone, earlier = KINDS[kind]
    backbone = {"scratch": None, "model": base_of(make_backbone, tmp_path / "base"), **backbone}

    def run(name, cls, backbone, **trainer):
        model = {"init_args": {"backbone": backbone}}
        return settings(corpus, questions, tmp_path / name, cls, model=model, trainer={"max_steps": 2, **trainer})

    if earlier:
        fit(run("earlier", "StageFineTuning", backbone))
        backbone = {**backbone, "adapter": str(tmp_path / "earlier" / "adapter")}
    config = fit(run("run", cls, backbone, callbacks=probes(questions))).resolved()
    kept = {path: read_json(path) for path in sorted((tmp_path / "run" / "records").rglob("*.json"))}
    assert len(kept) == 2 * len(NAMES)
    about, table = run_json(tmp_path / "run"), (tmp_path / "run" / "metrics.csv").read_text()
    delete_records(tmp_path / "run", NAMES)
    assert "forget/" not in (tmp_path / "run" / "metrics.csv").read_text()
    assert measure(tmp_path / "run", config) == list(NAMES)
    assert {path: read_json(path) for path in sorted((tmp_path / "run" / "records").rglob("*.json"))} == kept
    assert run_json(tmp_path / "run") == about
    assert values(table) == values((tmp_path / "run" / "metrics.csv").read_text())
    assert measure(tmp_path / "run", config) == [], "what is there is not measured again"


def values(table):
    """All that a metrics.csv says, whatever the order of its rows."""
    rows = csv.DictReader(io.StringIO(table))
    return sorted((name, row["step"], value) for row in rows for name, value in row.items() if value and name != "step")
