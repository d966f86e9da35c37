"""Fast likelihoods against the plain computation, which is the oracle."""

import itertools

import pytest
import torch

from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference import cross_entropy
from unlearn_lightning.inference.likelihood import mean_token, token_log_likelihood
from unlearn_lightning.models.adapters import eval_mode

ENCODED = [Encoded("a", [6, 7, 8, 9, 10], [9, 10]), Encoded("b", [7], [11, 12, 13, 5, 6]), Encoded("c", [8, 8, 8], [14])]


def oracle(net, encoded):
    """One row at a time, no padding, all logits, softmax in float64."""
    found = []
    for e in encoded:
        ids = torch.tensor([[*e.prompt_ids, *e.response_ids]])
        log_p = net(input_ids=ids).logits[0].double().log_softmax(-1)
        n = len(e.prompt_ids)
        found.append([log_p[n + i - 1, token].item() for i, token in enumerate(e.response_ids)])
    return found


def net_of(make_backbone, architecture, lora):
    net = make_backbone(architecture, lora).load_for_fine_tuning()
    with torch.no_grad():  # a fresh adapter would change nothing
        for p in net.parameters():
            if p.requires_grad:
                p.add_(0.02 * torch.randn(p.shape, generator=torch.Generator().manual_seed(3)))
    return net.eval()


@pytest.mark.parametrize(("architecture", "adapted", "side"), list(itertools.product(["llama", "qwen2"], [False, True], ["left", "right"])))
def test_token_log_likelihood_equals_the_plain_computation(make_backbone, lora, architecture, adapted, side):
    net = net_of(make_backbone, architecture, lora if adapted else None)
    batch = collate(ENCODED, pad_id=0, padding_side=side)
    values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
    assert values[~batch.response_mask].abs().max() == 0
    for row, mask, expected in zip(values, batch.response_mask, oracle(net, ENCODED), strict=True):
        torch.testing.assert_close(row[mask].double(), torch.tensor(expected, dtype=torch.float64), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("architecture", "adapted"), list(itertools.product(["llama", "qwen2"], [False, True])))
def test_chunked_cross_entropy_has_the_same_values_and_gradients(make_backbone, lora, architecture, adapted, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", 3 * 320)  # three places at a time; there are eight
    net, batch = net_of(make_backbone, architecture, lora if adapted else None), collate(ENCODED, pad_id=0)
    found = {}
    for way in ("full", "chunked"):
        net.zero_grad()
        values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask, way)
        (values * torch.arange(values.numel()).view_as(values)).sum().backward()
        found[way] = [values.detach(), *(p.grad.clone() for p in net.parameters() if p.grad is not None)]
    assert len(found["full"]) > 4
    for one, other in zip(found["full"], found["chunked"], strict=True):
        torch.testing.assert_close(one, other, atol=1e-6 * max(10.0, other.abs().max().item()), rtol=1e-5)


def test_cross_entropy_that_cannot_be_is_refused(make_backbone):
    net = make_backbone().load_base()
    net.config.final_logit_softcapping = 30.0
    with pytest.raises(ValueError, match="final_logit_softcapping changes its logits after the head"):
        cross_entropy.check_cross_entropy(net, "chunked")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="there is no CUDA device: set it to chunked"):
            make_backbone(cross_entropy="liger").load_for_fine_tuning()


def test_mean_token_by_hand():
    mask = torch.tensor([[False, True, True], [False, False, True]])
    torch.testing.assert_close(mean_token(torch.tensor([[0.0, -1.0, -3.0], [0.0, 0.0, -5.0]]), mask), torch.tensor([-2.0, -5.0]))


def test_extreme_logits_give_finite_log_likelihoods(make_backbone):
    net = make_backbone().load_base().eval()
    with torch.no_grad():
        net.get_input_embeddings().weight.mul_(3e3)
    batch = collate(ENCODED, pad_id=0)
    with eval_mode(net):
        values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
    assert values.isfinite().all()
    assert values.min() < -1000
