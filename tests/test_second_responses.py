"""Two responses to each prompt, chosen and rejected: from the file to the loss of an objective that compares them."""

import json
import math
from statistics import fmean

import pytest
import torch
from study_runs import fit, settings

from unlearn_lightning.data import ChatStage, EpochPlan, collate, identity
from unlearn_lightning.data.batching import BatchSource
from unlearn_lightning.objectives.dpo import DPO
from unlearn_lightning.objectives.npo import NPO


@pytest.fixture
def pairs(tmp_path):
    """Nine ragged records of a prompt and two responses."""
    lines = [
        {"prompt": f"Who wrote {'the ' * (i % 4)}book {i}?", "response": "Ann" + " and Ann" * (i % 3), "other": "Bob" + " or Bob" * (i % 5)}
        for i in range(9)
    ]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    return str(path)


def encoded_pairs(backbone, pairs):
    stage, tokenizer = ChatStage(source=pairs, held_out_examples=0, alternative_field="other"), backbone.load_tokenizer()
    return stage.encode(stage.examples("train"), tokenizer), tokenizer


def test_a_batch_holds_both_responses_row_by_row(make_backbone, pairs):
    encoded, tokenizer = encoded_pairs(make_backbone(), pairs)
    plan = EpochPlan(tuple(map(len, encoded)), batch_size=4, micro_batch_size=2, world_size=1)
    source = BatchSource(encoded, tokenizer.pad_token_id)
    for micro_batch in plan.micro_batches(1, 0, 0):
        batch = source[micro_batch].to("cpu", non_blocking=True)
        second, chosen = batch.alternative, [encoded[i] for i in micro_batch.indices]
        assert second.alternative is None
        assert [one.alternative.prompt_ids for one in chosen] == [one.prompt_ids for one in chosen]
        assert batch.identities() == [identity(one) for one in chosen]
        assert second.identities() == [identity(one.alternative) for one in chosen]
        assert second.example_index.tolist() == batch.example_index.tolist() == list(micro_batch.indices)
        assert second.batch_tokens == sum(len(encoded[i].alternative.response_ids) for i in micro_batch.batch)
        assert (second.epoch, second.position, second.batch_examples) == (batch.epoch, batch.position, batch.batch_examples)


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize(("micro", "devices"), [(4, 1), (1, 1), (2, 2)])
def test_shares_add_up_over_accumulation_and_devices(make_backbone, lora, pairs, micro, devices, cached):
    """The loss of a full step, and of the last one with one example, is that of its pairs one by one."""
    backbone = make_backbone(lora=None if cached else lora)
    encoded, tokenizer = encoded_pairs(backbone, pairs)
    source, lengths, module = BatchSource(encoded, tokenizer.pad_token_id), tuple(map(len, encoded)), DPO(backbone)
    module.configure_model()
    module.eval()
    if cached:
        module._reference = {identity(one): -float(n) for n, e in enumerate(encoded) for one in (e, e.alternative)}
        module._reference.update({identity(e.alternative): -1.0 for e in encoded})
    micro_batches = [m for rank in range(devices) for m in EpochPlan(lengths, 4, micro, devices).micro_batches(1, 0, rank)]
    steps = {m.batch for m in micro_batches}
    assert sorted(map(len, steps)) == [1, 4, 4]
    for step in steps:
        loss = sum(module.share_of_loss(source[m]) for m in micro_batches if m.batch == step)
        pairs_of_step = [collate([encoded[i]], tokenizer.pad_token_id) for i in step]
        assert loss.item() == pytest.approx(fmean(module.loss(pair).item() for pair in pairs_of_step), rel=1e-5)
    loss.backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in module.parameters())


@pytest.mark.parametrize("cached", [True, False])
def test_a_run_begins_at_two_log_two_over_beta_and_prefers_the_second(corpus, pairs, tmp_path, cached):
    more = {"data": {"init_args": {"source": pairs, "held_out_source": pairs, "batch_size": 4, "micro_batch_size": 2}}}
    config = settings(corpus, pairs, tmp_path / "run", cls="DPO", trainer={"max_steps": 3}, **more)
    config["data"]["init_args"]["alternative_field"] = "other"
    config["model"]["init_args"]["beta"] = 0.5
    config["model"]["init_args"]["cache_reference"] = cached
    if not cached:
        config["model"]["init_args"]["backbone"]["lora"] = {"rank": 2, "alpha": 4}
    config["trainer"]["log_every_n_steps"] = 1
    run = fit(config)
    lines = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    place = lines[0].split(",").index("train/loss")
    losses = [float(line.split(",")[place]) for line in lines[1:]]
    assert losses[0] == pytest.approx(4 * math.log(2), abs=1e-4)
    assert losses[0] > losses[-1]
    train = run.datamodule.encoded["train"]
    assert run.model.tokens_seen == sum(len(e) + len(e.alternative) for e in train), "one epoch of both responses"
    kept = run.model._reference
    assert (kept is None) is not cached
    if cached:
        assert kept.keys() == {identity(one) for e in train for one in (e, e.alternative)}


def test_an_objective_that_compares_refuses_data_with_one_response(corpus, questions, tmp_path):
    with pytest.raises(ValueError, match=r"DPO compares two responses .* Set data\.alternative_field"):
        fit(settings(corpus, questions, tmp_path / "run", cls="DPO"))


def test_other_objectives_do_not_pass_the_second_response(make_backbone, pairs):
    encoded, tokenizer = encoded_pairs(make_backbone(), pairs)
    batch = BatchSource(encoded, tokenizer.pad_token_id)[EpochPlan(tuple(map(len, encoded)), 1, 1, 1).micro_batches(1, 0, 0)[0]]
    assert NPO(make_backbone()).passed(batch) == [batch]
    assert DPO(make_backbone()).passed(batch) == [batch, batch.alternative]


def test_the_fingerprint_covers_the_second_response_and_is_as_before_without(pairs, tmp_path):
    def fingerprint(**more):
        return ChatStage(source=pairs, held_out_examples=0, **more).fingerprint()

    plain, both = fingerprint(), fingerprint(alternative_field="other")
    assert plain != both
    text = (tmp_path / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").write_text(text.replace("or Bob", "or Bib"))
    assert fingerprint() == plain
    assert fingerprint(alternative_field="other") != both


TURN = [{"role": "assistant", "content": "Bob"}]
ASKED = [{"role": "user", "content": "Who?"}]


@pytest.mark.parametrize(
    ("record", "fields"),
    [
        ({"prompt": "Who?", "chosen": "Ann", "rejected": "Bob"}, {"response_field": "chosen", "alternative_field": "rejected"}),
        (
            {"prompt": ASKED, "chosen": [{"role": "assistant", "content": "Ann"}], "rejected": TURN},
            {"prompt_field": "prompt", "response_field": "chosen", "alternative_field": "rejected"},
        ),
        ({"prompt": "Who?", "response": "Ann", "context": "Bob"}, {"alternative_field": "context"}),
    ],
    ids=["texts", "turns", "a field that would be refused"],
)
def test_where_the_second_response_may_stand(record, fields, tmp_path):
    (tmp_path / "one.jsonl").write_text(json.dumps(record))
    (example,) = ChatStage(source=str(tmp_path / "one.jsonl"), held_out_examples=0, **fields).examples("train")
    assert (example.prompt, example.response, example.alternative) == ("Who?", "Ann", "Bob")


def test_a_record_without_it_is_named(pairs):
    with pytest.raises(ValueError, match=r"pairs\.jsonl.*'rejected'"):
        ChatStage(source=pairs, held_out_examples=0, alternative_field="rejected").examples("train")


def test_references_of_a_step_do_not_move(make_backbone, lora, pairs):
    """With an adapter nothing is cached: both responses are asked with the adapter off."""
    encoded, tokenizer = encoded_pairs(make_backbone(), pairs)
    module = DPO(make_backbone(lora=lora))
    module.configure_model()
    batch = BatchSource(encoded, tokenizer.pad_token_id)[EpochPlan(tuple(map(len, encoded)), 4, 4, 1).micro_batches(1, 0, 0)[0]]
    before = module.reference_log_likelihood(batch.alternative)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.1)
    assert torch.equal(module.reference_log_likelihood(batch.alternative), before)
