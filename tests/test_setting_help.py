"""`unlearn fit --model.retain.help` and its like: every nested class shows its settings, in the short form that the help prints."""

import pytest

from unlearn_lightning.main import main

SHOWN = {
    "--model.retain.help": ("--model.retain.weight", "of the retain loss"),
    "--model.retain.data.help": ("--model.retain.data.source", "TofuStage"),
    "--model.retain.data.help TofuStage": ("--model.retain.data.batch_size",),
    "--model.backbone.help": ("--model.backbone.quantization", "--model.backbone.lora"),
    "--model.backbone.lora.help": ("--model.backbone.lora.rank",),
    "--model.backbone.scratch.help": ("--model.backbone.scratch.hidden",),
    "--model.lr_scheduler.help": ("--model.lr_scheduler.warmup", "Cosine"),
    "--model.lr_scheduler.help Cosine": ("--model.lr_scheduler.warmup",),
    "--model.optimizer.help": ("--model.optimizer.lr", "SGD"),
    "--model.optimizer.help=torch.optim.SGD": ("--model.optimizer.momentum",),
    "--model.init_args.backbone.init_args.lora.help": ("--model.backbone.lora.alpha",),
    "--trainer.callbacks.help": ("ForgetLikelihood", "`--trainer.callbacks.help CLASS` shows the settings of one"),
    "--trainer.callbacks+.help": ("ForgetLikelihood",),
    "--trainer.logger.help": ("WandbLogger",),
    "--model.backbone.adapter.help": ("--model.backbone.adapter", "folder(s) of earlier adapters"),
    "--model.backbone.dtype.help": ("--model.backbone.dtype", "bfloat16"),
    "--data.leave_out.help": ("--data.leave_out",),
    "--trainer.callbacks.data.help MathStage": ("--trainer.callbacks.data.max_length",),
}


@pytest.mark.parametrize("words", SHOWN)
@pytest.mark.parametrize("before", [[], ["-c", "configs/objectives/npo.yaml", "--model", "NPO"]], ids=["alone", "behind others"])
def test_a_nested_class_shows_its_settings(words, before, capsys):
    assert main(["fit", *before, *words.split()]) == 0
    text = capsys.readouterr().out
    assert all(part in text for part in SHOWN[words]), text
    assert not any(f"{words.partition('.help')[0]}.{passed} " in text for passed in ("params", "optimizer", "total_steps"))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--model.retained.help", "there is no setting 'retained' in CausalLMModule"),
        ("--model.backbone.dtype.x.help", "'dtype' of Backbone is no class with settings"),
        ("--model.lr_scheduler.help Nope", "there is no class 'Nope' for 'lr_scheduler'; there are"),
    ],
)
def test_what_cannot_be_shown_is_said_in_a_line(words, why, capsys):
    assert main(["fit", *words.split()]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert why in line
