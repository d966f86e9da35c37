"""torch.compile gives the same step: values, gradients, the reference through the adapter, and generation."""

import pytest
import torch
from test_likelihood import ENCODED
from torch._dynamo.utils import counters

from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.models.adapters import eval_mode, reference_mode

BATCHES = [collate(ENCODED, 0), collate([Encoded("d", [6] * 9, [7] * 4)], 0)]


def outcome(backbone, device="cpu"):
    """Everything that training and measuring ask of a net."""
    net, found = backbone.load_for_unlearning().to(device), []
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.requires_grad:
                parameter.add_(0.02)
    for batch in (batch.to(device) for batch in BATCHES):
        with reference_mode(net):
            found.append(token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask))
        values = token_log_likelihood(net, batch.input_ids, batch.attention_mask, batch.response_mask)
        values.sum().backward()
        found.append(values.detach())
    graphs = counters["stats"]["unique_graphs"]
    with eval_mode(net):
        texts = generate(net, backbone.load_tokenizer(), [[6, 7], [8, 9, 10]], 3)
    assert counters["stats"]["unique_graphs"] == graphs, "generation would use up torch's limit of graphs"
    return [*found, *(p.grad for p in net.parameters() if p.grad is not None)], texts


def test_a_compiled_backbone_gives_the_same_result(make_backbone, lora):
    # The layers are traced as for inductor, whose code generation takes minutes on a CPU; test_gpu_speed.py has that.
    (plain, texts), (compiled, compiled_texts) = outcome(make_backbone(lora=lora)), outcome(make_backbone(lora=lora, compile="eager"))
    assert len(plain) > 10
    for one, other in zip(plain, compiled, strict=True):
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    assert compiled_texts == texts


def test_an_unknown_backend_is_refused(make_backbone):
    with pytest.raises(ValueError, match=r"no backend of torch.compile: 'fast'. Usual is inductor"):
        make_backbone(compile="fast")
