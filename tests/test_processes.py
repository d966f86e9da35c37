"""Two processes do what one does: DDP, FSDP2, several nodes; fp32 and 4-bit; adapters and full fine-tuning; resumed across counts.

All two-process runs are made by one pair of processes, two "nodes" that torchrun starts on this machine (tests/many_runs.py). Each is
compared with the same run made by one process here.
"""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from runs import fit, run_json, settings, weights
from test_backbone import trained_adapter
from test_stopped_runs import Stop, StopAt

from unlearn_lightning import lightning_cli
from unlearn_lightning.backbone import Backbone, Lora, save_result
from unlearn_lightning.records import read_records
from unlearn_lightning.scratch import Scratch
from unlearn_lightning.study.study_config import merged

TESTS = Path(__file__).parent
TWO = {"data": {"init_args": {"micro_batch_size": 2}}, "trainer": {"num_nodes": 2}}
PROBES = [
    {"class_path": "ForgetLikelihood", "init_args": {"limit": 3, "chunk_size": 1, "every_n_steps": 2}},
    {"class_path": "GSM8KAccuracy", "init_args": {"limit": 3, "chunk_size": 1, "max_new_tokens": 5, "attempts": 2, "temperature": 1.0}},
]


def configs(corpus, questions, base, adapter, folder):
    """name -> the configuration for one process; each stands for several of the things that must hold."""
    lora = {"rank": 2, "alpha": 8}
    stacked = {"model": base, "scratch": None, "adapter": adapter, "lora": lora}

    def config(name, cls, backbone=None, **model):
        more = {"model": {"init_args": {"backbone": backbone or {}, **model}}, "checkpoint_every_n_steps": 1}
        return merged(settings(corpus, questions, folder / name, cls, trainer={"callbacks": PROBES}), more)

    return {
        "full": config("full", "StageFineTuning"),
        "full cached": config("full cached", "NPO"),
        "lora cached": config("lora cached", "NPO", {"lora": lora, "gradient_checkpointing": True}, cache_reference=True),
        "nf4 stacked": config("nf4 stacked", "NPO", {**stacked, "quantization": "nf4"}),
    }
