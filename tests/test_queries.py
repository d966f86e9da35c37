"""What callbacks may ask the model that is trained, and where they find its loss."""

import re
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks.progress import ProgressBar
from study_runs import SYSTEM_PROMPT, settings

from callbacks import ForgetLikelihood, GSM8KAccuracy
from unlearn_lightning.cli import lightning_cli
from unlearn_lightning.data import ChatStage, Encoded, Encoder, Example, collate
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.inference.multiple_choice import CandidateScores, score_candidates
from unlearn_lightning.modules import StageFineTuning

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("folder", ["callbacks", "unlearn_lightning/cli/templates"])
def test_callbacks_and_templates_ask_the_module_and_never_its_network(folder):
    files = sorted((ROOT / folder).glob("*.py"))
    assert files
    assert [file.name for file in files if re.search(r"\.net\b", file.read_text())] == []


@pytest.fixture
def module(make_backbone):
    """A module in a stand-in for a trainer, as a callback meets it."""
    found = StageFineTuning(make_backbone())
    found.trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    found.configure_model()
    found.train()
    return found


def test_inference_is_without_dropout_and_gradients_and_ends_as_it_began(module):
    with module.inference():
        assert not module.net.training
        assert not torch.is_grad_enabled()
    assert module.net.training, "as it was before"
    assert torch.is_grad_enabled()


def test_questions_are_answered_as_the_network_would(module):
    prompts, phrases = [[6, 7, 8], [9]], [[5, 6], [5, 7, 8]]
    batch = collate([Encoded("a", prompts[0], phrases[1])], 0)
    with module.inference():
        scores, texts = module.score_candidates(prompts, phrases), module.generate(prompts, 4, attempts=2, temperature=1.0, seed=3)
        logits = module.net(input_ids=batch.input_ids).logits[0].log_softmax(-1)
        by_hand = [logits[place - 1, batch.input_ids[0, place]].item() for place in (3, 4, 5)]
        assert module.token_log_likelihood(batch)[0, 3:].tolist() == pytest.approx(by_hand, abs=1e-5)
        assert scores.token_log_lik[0, 1].tolist() == pytest.approx(by_hand, abs=1e-5)
        assert torch.equal(scores.token_log_lik, score_candidates(module.net, prompts, phrases).token_log_lik)
        assert texts == generate(module.net, module.tokenizer, prompts, 4, 2, 1.0, 3)
    assert [len(attempts) for attempts in texts] == [2, 2]


class Answers:
    """A module that knows no network: token n of a phrase has log-likelihood -n, and every solution is the same."""

    def score_candidates(self, prompts, candidates):
        mask = torch.tensor([[n < len(c) for n in range(max(map(len, candidates)))] for c in candidates])
        values = -torch.arange(mask.shape[1], dtype=torch.float32) * mask
        return CandidateScores(values.expand(len(prompts), -1, -1), values.expand(len(prompts), -1, -1) + 1, mask)

    def generate(self, prompts, max_new_tokens, attempts, temperature, batch_size):
        return [["So it is\n#### 12"] * attempts for _ in prompts]


def test_a_probe_needs_the_public_methods_only(make_backbone, questions):
    data = ChatStage(source=questions, held_out_examples=5)
    forget = ForgetLikelihood(data, label="Sorry", paraphrases=["I must decline"])
    forget.encoder = Encoder(make_backbone().load_tokenizer(), SYSTEM_PROMPT)
    label, paraphrase = map(len, forget._phrases())
    (row,) = forget.predict(Answers(), [], [Encoded("a", [6], [7])], 0)
    assert row["label_log_lik"] == pytest.approx(-(label - 1) / 2)
    assert row["paraphrase_log_lik"] == pytest.approx([-(paraphrase - 1) / 2])
    accuracy = GSM8KAccuracy(data, attempts=2, temperature=1.0)
    examples = [Example("a", "?", "#### 12"), Example("a", "?", "#### 13")]
    rows = accuracy.predict(Answers(), examples, [Encoded("a", [6], [7])] * 2, 0)
    assert [row["correct"] for row in rows] == [[True, True], [False, False]]


class Shown(ProgressBar):
    """A progress bar that keeps what it would draw."""

    def __init__(self):
        super().__init__()
        self.losses = []

    def disable(self):
        pass

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.losses.append(self.get_metrics(trainer, pl_module).get("train/loss"))


class Losses(Callback):
    """Somebody's callback that reads the metrics."""

    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.seen.append({name: value.item() for name, value in trainer.callback_metrics.items()})


def test_whoever_monitors_or_shows_the_loss_finds_it(corpus, questions, tmp_path, monkeypatch):
    """Without `self.log`, which costs as much as two layers of a small model; micro-batches of one step see the step before."""
    monkeypatch.setattr(StageFineTuning, "log", lambda *_, **__: pytest.fail("self.log was called in a training step"))
    stopping = EarlyStopping("train/loss", mode="max", patience=1, check_on_train_epoch_end=True)
    keeping = ModelCheckpoint(tmp_path / "kept", "best", monitor="train/loss", every_n_train_steps=1, save_weights_only=True)
    losses, shown = Losses(), Shown()
    config = settings(corpus, questions, tmp_path / "run", trainer={"max_steps": 12, "enable_progress_bar": True})
    run = lightning_cli.run({"subcommand": "fit", "fit": config}, callbacks=[stopping, keeping, losses, shown])
    seen = [step["train/loss"] for step in losses.seen]
    assert len(seen) == run.trainer.global_step < 12, "the loss falls, so that stopping where it no longer grows comes early"
    assert shown.losses == seen
    assert keeping.best_model_score.item() == min(seen)
    assert stopping.best_score.item() == max(seen[2::3]), "of the epochs' last steps"
    assert max(step["train/lr"] for step in losses.seen) == pytest.approx(3e-3)
