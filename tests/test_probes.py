"""Probes: when they measure, on exactly which examples, and what the numbers are."""

import json
from statistics import fmean

import pytest
import torch
from study_runs import by_two_processes, fit, held_out, settings

from callbacks import ForgetLikelihood, GSM8KAccuracy, PathDivergence, RetainLikelihood
from callbacks.probe import Probe, metric_key
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.data import ChatStage, Encoded, collate
from unlearn_lightning.records import read_records


def probe(name, questions, **more):
    data = {"class_path": "ChatStage", "init_args": {"source": questions, "held_out_source": questions}}
    return {"class_path": name, "init_args": {"data": data, "limit": 5, "every_n_steps": 2, "chunk_size": 2, **more}}


def all_probes(questions):
    return [
        probe("ForgetLikelihood", questions, label="Sorry", paraphrases=["I must", "No, thank you"]),
        probe("RetainLikelihood", questions),
        probe("PathDivergence", questions),
        probe("GSM8KAccuracy", questions, max_new_tokens=4, attempts=2, temperature=1.0),
    ]


def test_probes_measure_before_step_1_every_n_steps_and_at_the_end(corpus, questions, tmp_path):
    fit(settings(corpus, questions, tmp_path / "run", trainer={"callbacks": all_probes(questions)}))
    for name in ("forget", "retain", "divergence", "gsm8k"):
        assert list(read_records(tmp_path / "run", name)) == [0, 2, 4, 5]


def test_accumulation_does_not_measure_twice(corpus, questions, tmp_path):
    seen = []

    class Counting(Probe):
        probe_name = "counting"

        def predict(self, pl_module, examples, encoded, seed):
            seen.append(pl_module.trainer.global_step)
            return [{"tokens": len(e.response_ids)} for e in encoded]

        def metrics(self, rows):
            return {metric_key(self.name, "tokens"): fmean(row["tokens"] for row in rows)}

    config = settings(corpus, questions, tmp_path / "run", data={"init_args": {"micro_batch_size": 1}})
    stage = ChatStage(source=questions, held_out_source=questions)
    lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[Counting(stage, limit=1, every_n_steps=1)])
    assert seen == [0, 1, 2, 3, 4, 5]


def test_five_examples_validated_on_two_processes_give_the_exact_means_and_the_same_samples(corpus, questions, tmp_path):
    def config(name, **trainer):
        more = {"data": {"init_args": {"micro_batch_size": 4}}, "trainer": {"callbacks": all_probes(questions), **trainer}}
        return settings(corpus, questions, tmp_path / name, **more)

    lightning_cli.run({"subcommand": "validate", "validate": config("one")})
    by_two_processes("validate", config("two", devices=2, strategy="ddp"))
    for name in ("forget", "retain", "divergence", "gsm8k"):
        first, second = (read_records(tmp_path / run, name) for run in ("one", "two"))
        assert list(second) == [0]
        assert [row["id"] for row in second[0]["examples"]] == [f"chat-held_out-{i:05d}" for i in range(5)]
        assert first == second, f"{name}: the untrained model's record depends on the number of processes"
    record = read_records(tmp_path / "two", "retain")[0]
    assert record["metrics"]["retain/chat_log_lik"] == pytest.approx(fmean(r["mean_token_log_lik"] for r in record["examples"]))
    assert held_out(tmp_path / "two") == pytest.approx(held_out(tmp_path / "one"), abs=1e-5)
    assert not (tmp_path / "two" / "model").exists()
    assert "forget/label_log_lik" in (tmp_path / "two" / "metrics.csv").read_text()


class Table:
    """A module whose every token has the given probability; its vocabulary does not matter."""

    def __init__(self, tokenizer, values):
        self.tokenizer, self.values, self.device = tokenizer, values, torch.device("cpu")

    def token_log_likelihood(self, batch):
        return torch.tensor(self.values)[:, None] * batch.response_mask


def test_retain_likelihood_by_hand(make_backbone, questions):
    callback = RetainLikelihood(ChatStage(source=questions, held_out_examples=5), limit=2)
    encoded = [Encoded("a", [6], [7, 8]), Encoded("b", [6], [7, 8, 9, 10])]
    rows = callback.predict(Table(make_backbone().load_tokenizer(), [-1.0, -2.0]), callback.data.examples("train")[:2], encoded, 0)
    assert [row["mean_token_log_lik"] for row in rows] == [-1.0, -2.0]
    assert callback.metrics(rows) == {"retain/chat_log_lik": -1.5}


def test_forget_metrics_by_hand(questions):
    callback = ForgetLikelihood(ChatStage(source=questions))
    rows = [
        {"label_log_lik": -1.0, "label_first_log_lik": -0.5, "label_margin": 2.0, "paraphrase_log_lik": [-4.0, -6.0]},
        {"label_log_lik": -3.0, "label_first_log_lik": -9.5, "label_margin": 0.0, "paraphrase_log_lik": [-5.0, -7.0]},
    ]
    found = callback.metrics(rows)
    assert found["forget/label_log_lik"] == -2
    assert found["forget/label_margin"] == 1
    assert found["forget/label_first_log_lik"] == -5
    assert found["forget/paraphrase_log_lik"] == -5.5
    assert found["forget/phrases_log_lik"] == pytest.approx(((-1 - 4 - 6) / 3 + (-3 - 5 - 7) / 3) / 2)
    callback._start = {"forget/label_log_lik": -0.5, "forget/phrases_log_lik": -4.0}
    drops = callback.since_start(found)
    assert drops["forget/label_drop"] == 1.5
    assert drops["forget/phrases_drop"] == pytest.approx(found["forget/phrases_log_lik"] * -1 - 4)


def test_accuracy_by_hand(questions):
    callback = GSM8KAccuracy(ChatStage(source=questions), attempts=2, temperature=1.0)
    rows = [callback._row("12", ["6 + 6 = 12\n#### 12.0", "#### 13"]), callback._row("1,000", ["#### $1000", "about 1000"])]
    assert [row["correct"] for row in rows] == [[True, False], [True, False]]
    assert callback.metrics(rows) == {"gsm8k/accuracy": 0.5}
    assert GSM8KAccuracy(callback.data, match="flexible")._row("1,000", ["about 1000"])["correct"] == [True]
    with pytest.raises(ValueError, match="greedy decoding gives the same text"):
        GSM8KAccuracy(callback.data, attempts=5)


def test_divergence_to_runs_that_recorded_before(corpus, questions, tmp_path):
    fit(settings(corpus, questions, tmp_path / "retrained", trainer={"callbacks": [probe("PathDivergence", questions)]}))
    earlier = str(tmp_path / "retrained")
    compared = probe("PathDivergence", questions, retrained=earlier, others={"p1": earlier})
    other = settings(corpus, questions, tmp_path / "same", trainer={"callbacks": [compared]})
    fit(other)
    records = read_records(tmp_path / "same", "divergence")
    assert records[5]["metrics"] == {"divergence/retrained": 0, "divergence/p1": 0}, "the same run lies at distance 0"
    start, end = (
        {row["id"]: torch.tensor(row["token_log_lik"]) for row in records[step]["examples"]} for step in (0, 5)
    )  # fmt: skip
    by_hand = fmean(((start[i] - end[i]) ** 2).sum().item() for i in start)
    assert records[0]["metrics"]["divergence/retrained"] == pytest.approx(by_hand)
    assert by_hand > 0


def test_divergence_names_a_run_without_records(corpus, questions, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"run 'retrained' in .* has no records of probe 'divergence'"):
        fit(
            settings(
                corpus, questions, tmp_path / "r", trainer={"callbacks": [probe("PathDivergence", questions, retrained=str(tmp_path))]}
            )
        )


def test_prediction_vectors_are_the_responses_token_log_likelihoods(make_backbone, questions):
    tokenizer = make_backbone().load_tokenizer()
    callback = PathDivergence(ChatStage(source=questions, held_out_examples=5), limit=1)
    encoded = [Encoded("a", [6, 7], [8, 9, 10])]
    (row,) = callback.predict(Table(tokenizer, [-2.0]), callback.data.examples("train")[:1], encoded, 0)
    assert row["token_log_lik"] == [-2.0, -2.0, -2.0]
    assert collate(encoded, 0).response_mask.sum() == 3


def test_chunks_are_of_like_lengths_where_no_random_numbers_belong_to_them(questions):
    callback = RetainLikelihood(ChatStage(source=questions), chunk_size=2)
    callback.examples = callback.encoded = [Encoded(str(n), [5] * n, [6]) for n in (4, 9, 1, 8, 2)]
    assert callback._parts(0, 1) == [(0, [2, 4]), (1, [0, 3]), (2, [1])]
    assert callback._parts(1, 2) == [(1, [0, 3])]
    callback.by_length = False
    assert callback._parts(0, 1) == [(0, [0, 1]), (1, [2, 3]), (2, [4])]


def test_metrics_reach_the_csv_and_the_records(corpus, questions, tmp_path):
    fit(settings(corpus, questions, tmp_path / "run", trainer={"callbacks": [probe("RetainLikelihood", questions)]}))
    header, *lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    column = header.split(",").index("retain/chat_log_lik")
    logged = [float(line.split(",")[column]) for line in lines if line.split(",")[column]]
    recorded = [json.loads(p.read_text())["metrics"]["retain/chat_log_lik"] for p in sorted((tmp_path / "run/records/retain").iterdir())]
    assert logged == recorded
    assert len(logged) == 4
