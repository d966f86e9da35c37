"""4-bit and 8-bit backbones: stacked adapters, exact after evaluation, small checkpoints, resumed runs."""

import pytest
import torch
from bitsandbytes.nn import Linear4bit, Linear8bitLt
from peft import PeftModel
from rich.console import Console
from study_runs import fit, settings, weights
from test_backbone import BATCH, log_lik, trained_adapter
from test_export import adapted
from test_stopped_runs import Stop, StopAt
from test_study import config_of, small, tree
from transformers import AutoModelForCausalLM

from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.main import main
from unlearn_lightning.models.adapters import eval_mode, reference_mode
from unlearn_lightning.models.backbone import Backbone, Lora, save_result
from unlearn_lightning.models.scratch import Scratch
from unlearn_lightning.modules import Unlearning
from unlearn_lightning.study.local import Local
from unlearn_lightning.study.work import Work

KINDS = {"nf4": Linear4bit, "int8": Linear8bitLt}


@pytest.fixture
def base(corpus, tmp_path):
    """A base model on disk whose layers are at least one block of 64 weights wide."""
    scratch = Scratch("llama", hidden=64, layers=2, intermediate=128, heads=4, kv_heads=2, vocab_size=320, corpus=(corpus,))
    backbone = Backbone(scratch=scratch, lora=None, seed=1)
    save_result(backbone.load_base(), backbone.load_tokenizer(), tmp_path / "base")
    return str(tmp_path / "base/model")


def moved(net):
    """The same network with another trainable adapter than the fresh one, which does nothing."""
    torch.manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            if p.requires_grad:
                p.add_(0.05 * torch.randn_like(p))
    return net


@pytest.mark.parametrize("kind", KINDS)
def test_linear_layers_are_quantised_and_nothing_else_is_upcast(kind, base, lora):
    net = Backbone(model=base, lora=lora, quantization=kind, dtype="bfloat16").load_for_fine_tuning()
    assert sum(isinstance(m, KINDS[kind]) for m in net.modules()) == 2 * 7
    assert net.get_output_embeddings().weight.dtype == net.get_input_embeddings().weight.dtype == torch.bfloat16
    assert {p.dtype for p in net.parameters() if p.requires_grad} == {torch.float32}


@pytest.mark.parametrize("kind", KINDS)
def test_earlier_adapters_are_stacked_and_the_reference_is_the_stage_model(kind, base, lora, tmp_path):
    stage = moved(Backbone(model=base, lora=lora, quantization=kind).load_for_fine_tuning())
    save_result(stage, Backbone(model=base).load_tokenizer(), tmp_path / "stage")
    expected = log_lik(stage)
    net = Backbone(model=base, lora=Lora(rank=2), quantization=kind, adapter=str(tmp_path / "stage/adapter")).load_for_unlearning()
    torch.testing.assert_close(log_lik(net), expected)
    moved(net)
    assert not torch.allclose(log_lik(net), expected, atol=1e-3)
    trainable = {name for name, p in net.named_parameters() if p.requires_grad}
    with reference_mode(net):
        torch.testing.assert_close(log_lik(net), expected)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == trainable
    assert all(".default." in name for name in trainable)

    # Unlearning's own adapter reloads on top of the stage's to the same log-likelihoods, here and in plain PEFT.
    save_result(net, Backbone(model=base).load_tokenizer(), tmp_path / "forgotten")
    folders = [str(tmp_path / run / "adapter") for run in ("stage", "forgotten")]
    again = Backbone(model=base, lora=Lora(rank=2), quantization=kind, adapter=folders).load_for_unlearning()
    torch.testing.assert_close(log_lik(again), log_lik(net))
    continued = Backbone(model=base, lora=Lora(rank=2), quantization=kind, adapter=folders).load_for_fine_tuning()
    torch.testing.assert_close(log_lik(continued), log_lik(net))
    config = Backbone(model=base, quantization=kind)._quantization_config(torch.float32)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base, quantization_config=config), folders[0])
    for layer in plain.modules():
        if isinstance(layer, Linear4bit):
            layer.support_avx512bf16_for_cpu = False
    torch.testing.assert_close(log_lik(plain), expected)


def gradients(net):
    token_log_likelihood(net.train(), BATCH.input_ids, BATCH.attention_mask, BATCH.response_mask).sum().backward()
    found = {name: p.grad.clone() for name, p in net.named_parameters() if p.grad is not None}
    net.zero_grad()
    return found


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_training_step_after_an_evaluation_is_the_step_without_it(base, lora, dtype):
    """On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights in an eval forward, unless told not to."""
    net = moved(Backbone(model=base, lora=lora, quantization="nf4", dtype=dtype).load_for_fine_tuning())
    assert not any(layer.support_avx512bf16_for_cpu for layer in net.modules() if isinstance(layer, Linear4bit))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        before = gradients(net)
        with eval_mode(net):
            log_lik(net)
        after = gradients(net)
    assert before
    for name, gradient in before.items():
        assert torch.equal(after[name], gradient), name


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_gradient_checkpointing_is_on_and_changes_nothing(base, lora, quantization):
    plain = moved(Backbone(model=base, lora=lora, quantization=quantization).load_for_fine_tuning())
    saving = moved(Backbone(model=base, lora=lora, quantization=quantization, gradient_checkpointing=True).load_for_fine_tuning())
    calls = []
    for net in (plain, saving):
        counted = []
        net.base_model.model.model.layers[0].mlp.register_forward_pre_hook(lambda *_, counted=counted: counted.append(1))
        calls.append((gradients(net), counted))
    (expected, once), (found, twice) = calls
    assert (len(once), len(twice)) == (1, 2), "the layer is computed again in the backward pass"
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient)


def test_a_stopped_4_bit_run_with_stacked_adapters_goes_on_to_the_same_weights(base, lora, corpus, questions, tmp_path):
    _, adapter = trained_adapter(base, tmp_path / "stage", lora)
    backbone = {"model": base, "scratch": None, "quantization": "nf4", "adapter": adapter, "lora": {"rank": 2, "alpha": 4, "dropout": 0.1}}

    def run(name):
        config = settings(corpus, questions, tmp_path / name, "NPO", checkpoint_every_n_steps=1)
        config["model"]["init_args"]["backbone"] = backbone
        return config

    fit(run("straight"))
    with pytest.raises(Stop):
        lightning_cli.run({"subcommand": "fit", "fit": run("stopped")}, callbacks=[StopAt(3)])
    checkpoint = torch.load(tmp_path / "stopped/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["state_dict"]
    assert all(".default." in key for key in checkpoint["state_dict"]), "checkpoints hold no base weights and no frozen adapters"
    fit(run("stopped"))
    expected, found = weights(tmp_path / "straight"), weights(tmp_path / "stopped")
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert torch.equal(found[key], value), key


def test_quantised_weights_cannot_be_trained_and_need_a_base_model(make_backbone, base):
    with pytest.raises(ValueError, match=r"quantization nf4 freezes the base model's weights: it needs backbone\.lora"):
        Backbone(model=base, lora=None, quantization="nf4")
    with pytest.raises(ValueError, match="a base model that was trained before"):
        make_backbone(lora=Lora(), quantization="nf4")


def test_a_4_bit_run_is_exported_as_the_model_that_was_trained(base, lora, corpus, questions, tmp_path, capsys):
    """One adapter for the 4-bit base, or weights that are dequantised before merging; both load in plain transformers and PEFT."""
    _, adapter = trained_adapter(base, tmp_path / "stage", lora)
    config = settings(corpus, questions, tmp_path / "run", "NPO")
    config["model"]["init_args"]["backbone"] = {
        "model": base, "scratch": None, "quantization": "nf4", "adapter": adapter, "lora": {"rank": 2, "alpha": 8},
    }  # fmt: skip
    fit(config)
    folders = [adapter, str(tmp_path / "run/adapter")]
    trained = log_lik(Backbone(model=base, lora=Lora(), quantization="nf4", adapter=folders).load_for_unlearning())

    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "one")]) == 0
    quantized = Backbone(model=base, lora=Lora(), quantization="nf4").load_base()
    torch.testing.assert_close(log_lik(PeftModel.from_pretrained(quantized, tmp_path / "one")), trained, atol=1e-5, rtol=0)

    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "merged"), "--merge"]) == 0
    said = capsys.readouterr().out
    assert "merged weights in float32, dequantised from nf4; its token log-likelihoods differ from the trained model's by" in said
    assert "of 4 of the run's examples" in said
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert not any(isinstance(module, Linear4bit) for module in merged.modules())
    torch.testing.assert_close(log_lik(merged), trained, atol=1e-5, rtol=0)
    assert float(said.rsplit("differ from the trained model's by ", 1)[1].split()[0]) < 1e-5
    # The untouched base's own weights, before quantisation, would be another model.
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "one")
    assert not torch.allclose(log_lik(plain), trained, atol=1e-4)


def test_a_merge_of_a_4_bit_run_in_bfloat16_is_nearer_in_float32(base, corpus, questions, tmp_path, capsys):
    """What bfloat16 rounds away in merging is printed in nats of the run's own examples; float32 keeps it."""
    adapted(base, tmp_path / "run", corpus, questions, "bfloat16", "nf4")
    means = []
    for dtype in ([], ["--dtype", "float32"]):
        out = str(tmp_path / f"merged{len(dtype)}")
        assert main(["export", str(tmp_path / "run"), "--merge", "--accept-difference", "--out", out, *dtype]) == 0
        said = capsys.readouterr().out
        means.append(float(said.rsplit("differ from the trained model's by ", 1)[1].split()[0]))
        assert "of 4 of the run's examples" in said
    assert 0 < means[1] < means[0], means
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.float32


def test_a_4_bit_study_that_was_interrupted_ends_as_if_it_had_not_been(base, corpus, questions, tmp_path, monkeypatch):
    """Interrupted in the unlearning, with the path's adapter stacked below the trained one."""
    backbone = {"model": base, "scratch": None, "quantization": "nf4", "lora": {"rank": 2, "alpha": 8, "dropout": 0.1}}
    changes = {"base": None, "order": ["inst"], "positions": [2], "retrained": False, "objectives": {"ga": None}, "backbone": backbone}
    changes["common"] = {"checkpoint_every_n_steps": 1}
    study = small(corpus, questions, **changes)
    study |= {"objectives": {"npo": study["objectives"]["npo"]}, "probes": {}, "stage_probes": []}

    def run(store):
        runs = tree(study, tmp_path / store)
        Local(jobs=1).launch(Work(config_of(study), runs, tmp_path / f"{store}-study", Console(quiet=True)))
        return [run.folder for run in runs]

    plain = Unlearning.training_step

    def interrupted(self, batch, batch_idx):
        if self.trainer.global_step == 1:
            raise KeyboardInterrupt
        return plain(self, batch, batch_idx)

    straight = run("straight")
    assert len(straight) == 3
    monkeypatch.setattr(Unlearning, "training_step", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run("stopped")
    assert [*(tmp_path / "stopped").glob("*/checkpoints/last.ckpt")]
    monkeypatch.setattr(Unlearning, "training_step", plain)
    stopped = run("stopped")
    for one, other in zip(straight, stopped, strict=True):
        expected, found = weights(one), weights(other)
        for key, value in expected.items():
            assert torch.equal(found[key], value), (one.name, key)
