"""How long sequences may be, and that longer ones are refused before training."""

import pytest
from transformers import BloomConfig, FalconConfig, GPT2Config, LlamaConfig, MambaConfig, Phi3Config

from callbacks import ForgetLikelihood, GSM8KAccuracy, RetainLikelihood
from unlearn_lightning.data import ChatStage
from unlearn_lightning.models.backbone import Backbone
from unlearn_lightning.models.positions import positions
from unlearn_lightning.modules.retain import RetainTerm
from unlearn_lightning.objectives.npo import NPO


def llama(kind, original=None, **more):
    rope = {"rope_theta": 1e4, "rope_type": kind, "factor": 4.0, **more}
    return LlamaConfig(
        max_position_embeddings=512, rope_parameters=rope | ({"original_max_position_embeddings": original} if original else {})
    )


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(max_position_embeddings=512), 512),
        (GPT2Config(n_positions=256), 256),
        (llama("linear"), 512),
        (llama("yarn", 512), 2048),
        (llama("yarn", 128), 512),
        (llama("llama3", 128, low_freq_factor=1.0, high_freq_factor=4.0), 512),
        (llama("dynamic"), 512),
        (
            Phi3Config(
                max_position_embeddings=4096, original_max_position_embeddings=512, pad_token_id=0,
                rope_parameters={"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
            ),
            512,
        ),
        (FalconConfig(alibi=True), None),
        (BloomConfig(), None),
        (MambaConfig(), None),
    ],
)  # fmt: skip
def test_how_many_positions_a_model_has(config, expected):
    assert positions(config) == expected


class Run:
    """What a probe's and a stage's set-up asks of a trainer and a module."""

    def __init__(self, backbone):
        self.backbone, self.tokenizer, self.lightning_module = backbone, backbone.load_tokenizer(), self


@pytest.mark.parametrize("architecture", ["llama", "gpt2 on disk"])
def test_sequences_longer_than_the_models_positions_are_refused_before_training(architecture, questions, tmp_path, make_backbone):
    if architecture == "llama":
        backbone = make_backbone(max_positions=128)
    else:
        make_backbone().load_tokenizer().save_pretrained(tmp_path / "gpt2")
        GPT2Config(n_positions=128).save_pretrained(tmp_path / "gpt2")
        backbone = Backbone(model=str(tmp_path / "gpt2"))
    run = Run(backbone)

    def stage(max_length):
        made = ChatStage(source=questions, held_out_source=questions, max_length=max_length)
        made.trainer = run
        return made

    for probe in (RetainLikelihood, ForgetLikelihood):
        with pytest.raises(ValueError, match=r"max_length of the chat data of the probe \w+ is 129 tokens, but .* has 128 positions"):
            probe(stage(129)).setup(run, run, "fit")
    with pytest.raises(ValueError, match=r"max_length of the chat stage is 129 tokens, but .* has 128 positions: lower it"):
        stage(129).setup("fit")
    stage(128).setup("validate")
    RetainLikelihood(stage(128)).setup(run, run, "fit")
    GSM8KAccuracy(stage(100), max_new_tokens=28).setup(run, run, "fit")
    with pytest.raises(ValueError, match="max_length 100 of its data plus max_new_tokens 29 of the probe gsm8k is 129 tokens"):
        GSM8KAccuracy(stage(100), max_new_tokens=29).setup(run, run, "fit")
    with pytest.raises(ValueError, match=r"longest prompt of the probe forget with its longest phrase is \d+ tokens"):
        ForgetLikelihood(stage(128), label="Ann", paraphrases=["Sorry " * 60]).setup(run, run, "fit")
    with pytest.raises(ValueError, match=r"max_length of the retain data \(chat\) is 129 tokens"):
        NPO(backbone, retain=RetainTerm(stage(129))).setup("fit")
