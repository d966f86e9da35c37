"""A model and files of one's own: the numbers are those of plain transformers, and what was asked for is unlearned and measured."""

import contextlib
import io
import json
import logging
import math
import re
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import pytest
import torch
import yaml
from peft import PeftModel
from rich.console import Console
from rouge_score import rouge_scorer
from study_runs import ADAMW, fit
from test_positions import Run
from transformers import AutoModelForCausalLM, AutoTokenizer

from callbacks import ForgetLikelihood, ResponseBehaviour, ResponseLikelihood, ResponseMatch, RetainLikelihood
from unlearn_lightning.cli.closing_table import closing_table
from unlearn_lightning.cli.config_files import FOLDER, listing, names
from unlearn_lightning.cli.measured_data import check_sources, fill_splits
from unlearn_lightning.data import ChatStage, Encoded, Example, MathStage, TextStage
from unlearn_lightning.models.backbone import Backbone, save_result
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.modules import RetainTerm
from unlearn_lightning.records import Quantity, read_records, record_path, write_json
from unlearn_lightning.runs.run_key import _probe, measured_data
from unlearn_lightning.study.study_config import merged

LORA = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
NEW_TOKENS = 6


def lines(path, subject, count):
    rows = [{"q": f"Who wrote {subject} {i}?", "a": f"{subject} {'and more ' * (i % 3)}by Ann {i}."} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return rows


@pytest.fixture(scope="module")
def files(corpus, tmp_path_factory):
    """A model folder, and three files with field names of their own."""
    root = tmp_path_factory.mktemp("own")
    scratch = Scratch("llama", hidden=32, layers=2, intermediate=64, heads=4, kv_heads=2, vocab_size=320, corpus=(corpus,))
    backbone = Backbone(scratch=scratch, lora=None, seed=1)
    save_result(backbone.load_base(), backbone.load_tokenizer(), root / "base")
    return root, {name: lines(root / f"{name}.jsonl", name, count) for name, count in {"forget": 5, "retain": 4, "holdout": 2}.items()}


def own_run(root, name, lora, **more):
    """The shipped configuration with these files, three steps long, and generation cut short."""
    config = yaml.safe_load((FOLDER / "own_data.yaml").read_text())
    for probe in config["trainer"]["callbacks"]:
        if "max_new_tokens" in probe["init_args"]:
            probe["init_args"]["max_new_tokens"] = NEW_TOKENS
    fields = {"prompt_field": "q", "response_field": "a"}
    backbone = {"model": str(root / "base/model"), "lora": lora}
    own = {
        "run_folder": str(root / name),
        "model": {
            "init_args": {
                "backbone": backbone,
                "optimizer": ADAMW,
                "retain": {"data": {"init_args": {"source": str(root / "retain.jsonl"), **fields}}},
            }
        },
        "data": {"init_args": {"source": str(root / "forget.jsonl"), **fields}},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 3,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "logger": None,
        },
    }
    out, messages = io.StringIO(), Messages()
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    logger.addHandler(messages)
    try:
        with contextlib.redirect_stdout(out):
            fit(merged(config, own, more))
    finally:
        logger.removeHandler(messages)
    return OwnRun(root / name, out.getvalue(), messages.said)


class OwnRun(NamedTuple):
    """A finished run, what it printed and what it said."""

    folder: Path
    printed: str
    said: list[str]


class Messages(logging.Handler):
    """Keeps Lightning's messages."""

    def __init__(self):
        super().__init__(logging.INFO)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


HOLDOUT = {"adapter": "holdout.jsonl", "all weights": None}


@pytest.fixture(scope="module", params=HOLDOUT)
def run(request, files):
    """An adapter with a holdout set, and all weights without."""
    root, rows = files
    held_out = HOLDOUT[request.param]
    source = str(root / held_out) if held_out else None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("COLUMNS", "80")
        patch.delenv("FORCE_COLOR", raising=False)
        lora = LORA if request.param == "adapter" else None
        done = own_run(root, request.param.replace(" ", "_"), lora, data={"init_args": {"held_out_source": source}})
    return done, rows if held_out else {name: rows[name] for name in ("forget", "retain")}


def loaded(run_folder, after):
    """The starting model, or the run's result, by plain transformers and PEFT."""
    base = run_folder.parent / "base/model"
    if after and (run_folder / "model").is_dir():
        return AutoModelForCausalLM.from_pretrained(run_folder / "model").eval()
    net = AutoModelForCausalLM.from_pretrained(base)
    return (PeftModel.from_pretrained(net, run_folder / "adapter") if after else net).eval()


@torch.no_grad()
def plainly(net, tokenizer, row):
    """Mean token log-likelihood of the answer and the greedy answer, one row at a time."""
    user = [{"role": "user", "content": row["q"]}]
    prompt = tokenizer.apply_chat_template(user, add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template([*user, {"role": "assistant", "content": row["a"]}], tokenize=False).rstrip()
    start = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    said = tokenizer(whole.removeprefix(prompt), add_special_tokens=False)["input_ids"]
    log_probs = net(torch.tensor([start + said])).logits[0].log_softmax(-1)
    log_lik = fmean(log_probs[len(start) + i - 1, token].item() for i, token in enumerate(said))
    generated = net.generate(torch.tensor([start]), max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return log_lik, tokenizer.decode(generated[0, len(start) :], skip_special_tokens=True)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_the_numbers_are_those_of_plain_transformers(run, after):
    (folder, _, _), rows = run
    net, tokenizer = loaded(folder, after), AutoTokenizer.from_pretrained(folder.parent / "base/model")
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True)
    for name, asked in rows.items():
        likelihood, answers = (list(read_records(folder, probe).values())[-after] for probe in (name, f"{name}_answers"))
        plain = {row["q"]: (row["a"], *plainly(net, tokenizer, row)) for row in asked}
        assert {row["text"] for row in likelihood["examples"]} == set(plain), "all of the file is measured"
        assert likelihood["metrics"] == {
            f"{name}/log_lik": pytest.approx(fmean(value for _, value, _ in plain.values()), abs=1e-4),
            f"{name}/probability": pytest.approx(fmean(math.exp(value) for _, value, _ in plain.values()), abs=1e-4),
        }
        assert {row["text"]: row["answer"] for row in answers["examples"]} == {q: answer for q, (_, _, answer) in plain.items()}
        assert answers["metrics"] == {
            f"{name}_answers/exact_match": fmean(answer.strip() == a for a, _, answer in plain.values()),
            f"{name}_answers/rouge_l_recall": pytest.approx(fmean(scorer.score(a, said)["rougeL"].recall for a, _, said in plain.values())),
        }


def test_the_forget_set_loses_and_likelihoods_are_measured_before_and_after(run):
    (folder, _, _), _ = run
    forget, retain = (read_records(folder, name) for name in ("forget", "retain"))
    assert list(forget) == list(retain) == [0, 3]
    assert forget[3]["metrics"]["forget/log_lik"] < forget[0]["metrics"]["forget/log_lik"]
    assert retain[0]["examples"][0]["text"].startswith("Who wrote retain"), "the retain term's own file is measured"


def test_a_finished_fit_says_what_was_unlearned_and_what_was_not_measured(run):
    (_, _, said), rows = run
    text = "\n".join(said)
    assert f"chat: 5 of 5 examples unlearned, {'2 held out' if 'holdout' in rows else 'none held out'}" in text
    assert "chat: 4 of 4 examples retained, none held out" in text
    absent = [message for message in said if "ot measured" in message]
    assert len(absent) == ("holdout" not in rows)
    for line in absent:
        assert line.startswith("Not measured: holdout, holdout_answers, as no chat examples are held out")


def test_the_table_at_the_end_is_plain_and_fits_80_columns(run):
    (folder, printed, _), rows = run
    lines = printed.splitlines()
    assert all(len(line) <= 80 for line in lines), printed
    assert "\x1b" not in printed, "plain where nobody looks at a terminal"
    for name in rows:
        records = read_records(folder, name)
        values = [f"{records[step]['metrics'][f'{name}/log_lik']:.4g}" for step in (0, 3)]
        assert ["log-likelihood", "nats/token", *values] in [line.split()[:4] for line in lines]
    result = "adapter" if "holdout" in rows else "model"
    for place in (f"{folder.name}/{result}", f"{folder.name}/metrics.csv", f"{folder.name}/records", f"unlearn report {folder.name}"):
        assert place in printed


# --- what is held out, and which part is measured ------------------------------------------------------------------------------

NPO, TUNING = "unlearn_lightning.objectives.npo.NPO", "unlearn_lightning.modules.stage_fine_tuning.StageFineTuning"


def data(cls=ChatStage, source="mine.jsonl", held_out_source=None, held_out_examples=None):
    settings = {"source": source, "held_out_source": held_out_source, "held_out_examples": held_out_examples}
    return {"class_path": f"{cls.__module__}.{cls.__qualname__}", "init_args": settings}


def config(model, trained_on, retained=None, probes=()):
    retain = retained and {"data": retained}
    return {"model": {"class_path": model, "init_args": {"retain": retain}}, "data": trained_on, "trainer": {"callbacks": list(probes)}}


@pytest.mark.parametrize(
    ("model", "given", "held_out"),
    [
        (NPO, data(), 0),
        (NPO, data(source="hub:owner/name"), 0),
        (NPO, data(TextStage, "book.txt"), 0),
        (NPO, data(held_out_examples=9), 9),
        (NPO, data(held_out_source="other.jsonl"), 128),
        (NPO, data(MathStage, "files"), 128),
        (NPO, data(MathStage, "hub"), 128),
        (NPO, data(MathStage, "world"), 128),
        (TUNING, data(), 128),
        (TUNING, data(held_out_examples=0), 0),
    ],
)
def test_unlearning_takes_all_of_a_source_that_it_would_have_to_divide(model, given, held_out):
    filled = config(model, given, retained=data())
    fill_splits(filled)
    assert given["init_args"]["held_out_examples"] == held_out
    assert filled["model"]["init_args"]["retain"]["data"]["init_args"]["held_out_examples"] == 0


@pytest.mark.parametrize(
    ("model", "measured", "split"),
    [
        (NPO, {}, "train"),
        (NPO, {"of": "retain"}, "train"),
        (NPO, {"split": "held_out"}, "held_out"),
        (NPO, {"data": data()}, "held_out"),
        (NPO, {"data": data(held_out_examples=0)}, "train"),
        (TUNING, {}, "held_out"),
    ],
)
def test_a_probe_measures_what_is_held_out_or_else_what_is_trained_on(model, measured, split):
    settings = {"data": None, "split": None, "of": "train", **measured}
    probe = {"class_path": "callbacks.ResponseLikelihood", "init_args": settings}
    fill_splits(config(model, data(), data() if model == NPO else None, [probe]))
    assert settings["split"] == split


def test_the_key_of_a_probe_of_the_retained_data_is_that_of_a_probe_which_names_it(questions):
    mine, kept = data(source=questions, held_out_examples=0), data(source=questions, held_out_examples=4)

    def read(read, *args):
        return read(*args)

    def inputs(**settings):
        given = {"data": None, "split": "train", "of": "train", **settings}
        probe = {"class_path": "callbacks.ResponseLikelihood", "init_args": given}
        return _probe(probe, measured_data(given, mine, kept), read)

    assert inputs(of="retain") == inputs(data=kept) != inputs()


@pytest.mark.parametrize(
    ("where", "given"),
    [
        ("data.source", config(NPO, data(source="world"))),
        ("model.retain.data.source", config(NPO, data(), data(source="world"))),
        (
            "trainer.callbacks[0].init_args.data.source",
            config(TUNING, data(), probes=[{"class_path": "X", "init_args": {"data": data(source="world")}}]),
        ),
    ],
)
def test_data_without_a_source_is_named_by_its_setting(where, given):
    with pytest.raises(ValueError, match=f"^{re.escape(where)}: ChatStage has no built-in texts"):
        check_sources(given)


# --- probes do not measure the wrong thing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("probe", [ForgetLikelihood, ResponseBehaviour])
def test_a_label_that_no_response_begins_with_is_refused(probe, questions, make_backbone):
    run, stage = Run(make_backbone()), ChatStage(source=questions, held_out_examples=5)
    said = r"none of the 5 chat responses begins with its \w+ 'Sorry, I can not assist you'; the first is 'Ann wrote it.*ResponseLikelihood"
    with pytest.raises(ValueError, match=said):
        probe(stage).setup(run, run, "fit")


def test_a_label_or_a_pattern_of_the_data_s_own_is_measured(questions, make_backbone):
    run, stage = Run(make_backbone()), ChatStage(source=questions, held_out_examples=5)
    ForgetLikelihood(stage, label="Ann").setup(run, run, "fit")
    ResponseBehaviour(stage, pattern="Ann").setup(run, run, "fit")
    ResponseBehaviour(stage, begins_with="I do not know").setup(run, run, "fit")


@pytest.mark.parametrize("file", [name for name in names() if name.startswith(("objectives/", "own_data"))])
def test_no_shipped_unlearning_measures_data_that_the_user_does_not_name(file):
    for probe in yaml.safe_load((FOLDER / file).read_text())["trainer"]["callbacks"]:
        assert "data" not in probe["init_args"], f"{probe['class_path']} would measure it beside data of one's own"


def test_what_is_retained_is_measured_from_the_term_itself(questions, make_backbone):
    kept = ChatStage(source=questions, held_out_examples=0)
    run = Run(make_backbone())
    run.retained_data, run.datamodule = RetainTerm(kept).data, ChatStage(source="elsewhere.jsonl")
    probe = RetainLikelihood(of="retain", limit=3)
    probe.setup(run, run, "fit")
    assert (probe.data, probe.split, len(probe.encoded)) == (kept, "train", 3)
    with pytest.raises(ValueError, match="both say what is measured"):
        RetainLikelihood(kept, of="retain")


def test_a_probe_without_retained_data_measures_nothing(make_backbone):
    run = Run(make_backbone())
    run.retained_data = None
    probe = ResponseLikelihood(of="retain")
    probe.setup(run, run, "fit")
    assert probe.absent.startswith("nothing is retained here")
    run.global_step = 4
    assert probe.measure(run, run) == {}


# --- plain text ------------------------------------------------------------------------------------------------------------------


def test_a_book_is_cut_into_pieces_that_are_measured_and_continued(tmp_path, make_backbone):
    (tmp_path / "book.txt").write_text("Ann wrote the blue book.\n" * 9)
    stage, run = TextStage(source=str(tmp_path / "book.txt"), held_out_examples=0, max_length=33), Run(make_backbone())
    assert len(stage.examples("train")) == 1
    asked = []
    run.generate = lambda prompts, *_, **__: asked.extend(prompts) or [["wrote the"] for _ in prompts]
    probe = ResponseMatch(stage, limit=2, max_new_tokens=8)
    probe.setup(run, run, "fit")
    pieces = stage.encode(stage.examples("train"), run.tokenizer)
    assert len(pieces) > 2
    assert probe.encoded == pieces[:2]
    rows = probe.predict(run, probe.examples, probe.encoded, 0)
    assert asked == [[*piece.prompt_ids, *piece.response_ids[:16]] for piece in pieces[:2]]
    assert [row["response"] for row in rows] == [run.tokenizer.decode(piece.response_ids[16:]) for piece in pieces[:2]]
    assert all(0 < row["rouge_l_recall"] < 1 and not row["exact_match"] for row in rows)


def test_one_field_of_a_text_record_may_be_named(tmp_path):
    (tmp_path / "texts.jsonl").write_text(json.dumps({"title": "Blue", "text": "Ann wrote it."}))
    source = {"source": str(tmp_path / "texts.jsonl"), "held_out_examples": 0}
    assert TextStage(**source).examples("train")[0].response == "Blue\nAnn wrote it."
    assert TextStage(**source, prompt_field="text").examples("train")[0].response == "Ann wrote it."
    (tmp_path / "book.txt").write_text("Ann.")
    with pytest.raises(ValueError, match=r"A plain text is read by TextStage \(--data TextStage\)"):
        ChatStage(source=str(tmp_path / "book.txt"), held_out_examples=0).examples("train")


# --- ROUGE-L and exact match -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stemmer", [True, False])
def test_rouge_is_the_package_s_with_or_without_its_stemmer(stemmer):
    pairs = [("She writes books.", "She wrote a book"), ("Ann", "Ann"), ("one two three", ""), ("Über 12 Bücher", "12 bücher")]
    probe = ResponseMatch(stemmer=stemmer)
    scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=stemmer)
    rows = [probe._row(*pair) for pair in pairs]
    assert [row["rouge_l_recall"] for row in rows] == [scorer.score(*pair)["rougeL"].recall for pair in pairs]
    assert [row["exact_match"] for row in rows] == [False, True, False, False]
    assert rows[0]["rouge_l_recall"] == pytest.approx(2 / 3 if stemmer else 1 / 3)
    assert probe._row(" Ann\n", "Ann ")["exact_match"]


def test_a_response_without_words_of_the_package_counts_in_no_mean():
    probe = ResponseMatch(name="a")
    rows = [probe._row("東京", "東京"), probe._row("Ann", "Bo")]
    assert [row["rouge_l_recall"] for row in rows] == [None, 0.0]
    assert probe.metrics(rows) == {"a/exact_match": 0.5, "a/rouge_l_recall": 0.0}
    assert probe.metrics(rows[:1]) == {"a/exact_match": 1.0}


def test_the_probability_is_the_mean_of_the_examples_own():
    probe = ResponseLikelihood(name="forget")
    rows = [{"mean_token_log_lik": math.log(p)} for p in (0.5, 0.125)]
    assert probe.metrics(rows) == {"forget/log_lik": pytest.approx(math.log(0.25)), "forget/probability": pytest.approx(0.3125)}
    assert set(probe.describe(probe.metrics(rows))) == {"forget/log_lik", "forget/probability"}


def test_a_prompt_is_answered_and_a_text_is_halved():
    from callbacks.response_match import _question

    encoded = Encoded("a", [1, 2], [3, 4, 5])
    assert _question(Example("a", "Who?", "Ann."), encoded) == ([1, 2], None)
    assert _question(Example("a", "", "Ann."), encoded) == ([1, 2, 3, 4], [5])


# --- the table at the end ----------------------------------------------------------------------------------------------------------


def drawn(folder, probes):
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        console.print(closing_table(folder, probes))
    return [line.split() for line in capture.get().splitlines()]


def test_any_probe_s_quantities_stand_in_the_table(tmp_path):
    quantities = {"mine/length": Quantity("[red]length[/red] of what is said", "tokens").as_json()}
    for step, value in ((0, 12.0), (4, None)):
        metrics = {"mine/length": value, "mine/undeclared_name": 0.123456}
        write_json(
            record_path(tmp_path, "mine", step),
            {"probe": "mine", "step": step, "metrics": metrics, "quantities": quantities, "examples": [{}]},
        )
    assert drawn(tmp_path, ["none", "mine"]) == [
        ["quantity", "unit", "before", "after", "change"],
        ["mine:", "1", "example"],
        ["[red]length[/red]", "of", "what", "is", "said", "tokens", "12", "-", "-"],
        ["undeclared", "name", "0.1235", "0.1235", "+0"],
        ["before:", "step", "0,", "after:", "step", "4"],
    ]  # fmt: skip


def test_a_single_measurement_has_one_column_and_nothing_has_no_table(tmp_path):
    write_json(record_path(tmp_path, "mine", 0), {"probe": "mine", "step": 0, "metrics": {"mine/x": 2.0}, "examples": [{}, {}]})
    assert drawn(tmp_path, ["mine"]) == [["quantity", "unit", "value"], ["mine:", "2", "examples"], ["x", "2"]]
    assert closing_table(tmp_path, ["other"]) is None


def test_the_configuration_is_found_by_name():
    assert "own_data.yaml" in names()
    assert listing().startswith("configs\n  own_data.yaml")
