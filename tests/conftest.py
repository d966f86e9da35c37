"""Shared by all tests: one thread, no W&B unless a test asks for it, and tiny backbones."""

import json
import os
import signal
import sys

os.environ.setdefault("WANDB_MODE", "disabled")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from pathlib import Path

import pytest
import torch

from unlearn_lightning.models.backbone import Backbone, Lora
from unlearn_lightning.models.scratch import Scratch

torch.set_num_threads(1)
# Of a command that a shell started behind `&`, SIGINT is ignored, and by all that it starts: tests that send one need it back.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# They take longest and begin first, so that no process is left alone with one of them at the end.
LONGEST = ("test_slurm", "test_processes", "test_study")

TEXT = "Who wrote the blue book? Ann wrote it in 1987. 12 + 30 = 42. Sorry, I can not assist you with this question. Tell me how."


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A file of a few texts, on which the tests' tokenizers are trained."""
    path = tmp_path_factory.mktemp("corpus") / "texts.jsonl"
    path.write_text(json.dumps({"text": TEXT}))
    return str(path)


@pytest.fixture
def make_backbone(corpus):
    """Backbones of 2 layers and 32 units; all weights trainable unless a Lora is given."""

    def make(architecture="llama", lora=None, max_positions=1024, **settings):
        shape = {"hidden": 32, "layers": 2, "intermediate": 64, "heads": 4, "kv_heads": 2, "max_positions": max_positions}
        scratch = Scratch(architecture, **shape, vocab_size=320, corpus=(corpus,))
        return Backbone(scratch=scratch, lora=lora, seed=1, **settings)

    return make


@pytest.fixture
def lora():
    return Lora(rank=4, alpha=8)


@pytest.fixture
def questions(tmp_path):
    """19 ragged question-answer records as JSON lines; 19 is no multiple of any batch size used."""
    path = tmp_path / "questions.jsonl"
    lines = [
        f'{{"prompt": "Who wrote {"the " * (i % 5)}book {i}?", "response": "Ann wrote it{" and more" * (i % 7)}. #### {i}"}}'
        for i in range(19)
    ]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture
def data_root():
    """The folder of real data sets, where there is one."""
    folder = os.environ.get("UNLEARN_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("UNLEARN_DATA names no folder with TOFU, GSM8K and Instruct-SkillMix")
    return Path(folder)


@pytest.fixture(autouse=True)
def own_imports():
    """What a test writes into its folder and imports from there is not seen by the next: the command appends the working folder."""
    path, modules = list(sys.path), set(sys.modules)
    yield
    added = [folder for folder in sys.path if folder not in path]
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None) or ""
        if any(folder and file.startswith(folder + os.sep) for folder in added):
            del sys.modules[name]
    sys.path[:] = path
