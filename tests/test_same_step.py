"""The optimizer step does not depend on micro-batches or devices: weights after 5 steps are the same to 1e-5, but for single ones."""

import pytest
from study_runs import SYSTEM_PROMPT, command_fit, fit, logged_steps, run_json, settings, weights

from unlearn_lightning.study.study_config import merged

LORA = {"model": {"init_args": {"backbone": {"lora": {"rank": 4, "alpha": 8}}}}}
# Token-averaged and example-averaged losses; with full fine-tuning NPO's reference is cached.
CASES = {
    "token average": ("StageFineTuning", {}),
    "example average, cached reference": ("NPO", {}),
    "example average, reference through the adapter": ("NPO", LORA),
}


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_and_processes_give_the_same_weights(case, corpus, questions, tmp_path):
    model, more = CASES[case]
    # What all examples share is computed once for a micro-batch of several, and not for one of a single example.
    more = {**more, "data": {"init_args": {"system_prompt": SYSTEM_PROMPT}}}

    def run(name, micro_batch_size, devices=1):
        trainer = {"devices": devices, "strategy": "ddp"} if devices > 1 else {}
        changed = merged(more, {"data": {"init_args": {"micro_batch_size": micro_batch_size}}, "trainer": trainer})
        config = settings(corpus, questions, tmp_path / name, model, **changed)
        if devices > 1:
            command_fit(config)
        else:
            fit(config)
        return weights(tmp_path / name)

    whole = run("micro8", 8)
    start = run_untrained(corpus, questions, tmp_path, model, more)
    assert max((whole[k] - start[k]).abs().max() for k in whole) > 1e-3, "nothing was learned: the comparison would be empty"
    others = [run("micro2", 2), run("micro1", 1)]
    # As the command starts them; test_processes.py has the other cases.
    others += [run("two processes", 2, devices=2)] if case == "token average" else []
    counted = {run_json(folder)["tokens"] for folder in tmp_path.iterdir() if (folder / "run.json").is_file()}
    assert len(counted) == 1, counted
    for other in others:
        assert other.keys() == whole.keys()
        for key, value in whole.items():
            difference = (other[key] - value).abs()
            # Adam divides a gradient that is nearly 0 by itself, so that rounding may move single weights by a part of the rate.
            assert difference.max() < 1e-4
            assert (difference > 1e-5).double().mean() < 5e-3, key
    told = logged_steps(tmp_path / "micro8")
    assert len(told) == 5
    for name in {file.parent.name for file in tmp_path.glob("*/metrics.csv")} - {"untrained", "micro8"}:
        for step, row in logged_steps(tmp_path / name).items():
            assert row == pytest.approx(told[step], abs=1e-4), (name, step)


def run_untrained(corpus, questions, tmp_path, model, more):
    still = merged(more, {"model": {"init_args": {"optimizer": {"init_args": {"lr": 0.0}}}}})
    fit(settings(corpus, questions, tmp_path / "untrained", model, **still))
    return weights(tmp_path / "untrained")
