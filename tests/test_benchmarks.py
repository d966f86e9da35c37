"""The benchmarks' two ways of each work give the same result, and their sums are right. Nothing is timed here."""

import importlib
import pkgutil
from pathlib import Path

import pytest
import torch
from test_likelihood import ENCODED, net_of

import scripts
from scripts.benchmarks import size, study
from scripts.benchmarks.__main__ import markdown
from scripts.benchmarks.measure import Result, peak_bytes
from scripts.benchmarks.padding import padded_per_token
from scripts.benchmarks.scaling import exponent
from scripts.benchmarks.scoring import each_pair
from scripts.benchmarks.steps import full, selected
from unlearn_lightning.data import Encoded, collate
from unlearn_lightning.inference.generation import generate
from unlearn_lightning.inference.likelihood import token_log_likelihood
from unlearn_lightning.inference.multiple_choice import score_candidates

PROMPTS, CANDIDATES = [[6, 7, 8], [9]], [[9, 10], [11, 12, 13], [9]]


@torch.no_grad()
def test_both_ways_compute_the_same(make_backbone):
    net, batch = net_of(make_backbone, "llama", None), collate(ENCODED, pad_id=0)
    torch.testing.assert_close(full(net, batch), selected(net, batch))
    inputs = net, batch.input_ids, batch.attention_mask, batch.response_mask
    torch.testing.assert_close(study.full_logits(*inputs), token_log_likelihood(*inputs))
    scores, plain = score_candidates(net, PROMPTS, CANDIDATES), study.pair_by_pair(net, PROMPTS, CANDIDATES)
    torch.testing.assert_close(each_pair(net, PROMPTS, CANDIDATES), scores.token_log_lik.sum(-1))
    for one, other in zip(scores, plain, strict=True):
        torch.testing.assert_close(one, other)
    tokenizer = make_backbone().load_tokenizer()
    assert study.padded_generate(net, tokenizer, PROMPTS, 5) == generate(net, tokenizer, PROMPTS, 5)


def test_padding_by_hand():
    examples = [Encoded(str(n), [1] * (n - 1), [2]) for n in (2, 4, 2, 4)]
    assert padded_per_token(examples, 50, batch_size=2) == 1
    assert padded_per_token(examples, 50, batch_size=4) == pytest.approx(16 / 12)


def test_a_quadratic_cost_has_exponent_two():
    assert exponent([1, 2, 4, 8], [3, 12, 48, 192]) == pytest.approx(2)


def test_peak_memory_counts_what_is_alive_at_once():
    def work():
        for _ in range(3):
            torch.zeros(1000, dtype=torch.float64).add_(1)

    assert 8000 <= peak_bytes(work) < 16000


def test_the_table_says_whether_targets_were_met():
    rows = [
        Result("a", "b", "c", "s", 1.0, 3.0, 3.0, 2.0),
        Result("a", "b", "c", "s", 1.0, 1.5, 1.5, 2.0),
        Result("p", "q", "r", "tokens", 1.02, 2.0, 1.02, 1.04, at_most=True),
    ]
    lines = markdown(rows).splitlines()[2:5]
    assert ["| yes |" in line for line in lines] == [True, False, True]
    assert "**no**" in lines[1]
    assert "at most 1.04" in lines[2]


def test_a_case_of_size_is_a_process_whose_failure_is_told(tmp_path):
    found = size.cost([size.sys.executable, "-c", "b'x' * 50_000_000; print(sum(range(10**6)))"], tmp_path)
    assert found.memory > 5
    assert 0 < found.cpu <= found.wall * 2
    with pytest.raises(RuntimeError, match="No such thing"):
        size.cost([size.sys.executable, "-c", "raise SystemExit('No such thing')"], tmp_path)
    size.write_lines(tmp_path / "lines.jsonl", 3)
    assert len((tmp_path / "lines.jsonl").read_text().splitlines()) == 3
    assert len(size.large_study(2, 5)["objectives"]) == 5


def test_the_demo_of_the_study_row_is_the_shipped_one():
    config = study.demo(0.25)
    assert config.name == "demo"
    assert config.stages["math"]["data"]["init_args"]["train_examples"] == 100
    assert config.stages["safety"]["data"]["init_args"]["train_examples"] == 256


def test_every_file_that_a_script_names_is_there():
    """Paths of a moved module would point to other folders; models are made by a script of their own."""
    names = [module.name for module in pkgutil.walk_packages(scripts.__path__, "scripts.") if "writing" not in module.name]
    assert {"scripts.benchmarks.study", "scripts.study_results.pages", "scripts.theory_tables"} <= set(names)
    paths = [(name, key, value) for name in names for key, value in vars(importlib.import_module(name)).items() if isinstance(value, Path)]
    assert [path for path in paths if not {"models", "runs"} & set(path[2].parts) and not path[2].exists()] == []
