"""Two processes do what one does: the objectives that know more than their weights, by DDP and where FSDP2 cuts them."""

import pytest
import torch
from forked import together
from study_runs import fit, run_json, settings, weights
from test_every_objective import RESUMED
from test_processes import by_slurm, trainer
from test_retain import kept, retain  # noqa: F401

from unlearn_lightning.study.study_config import merged

pytestmark = pytest.mark.timeout(300)
KINDS = ("activations that are kept", "weights that are negated", "a multiplier", "subspaces")
# FSDP2 has no whole weights to project.
CASES = [(strategy, case) for strategy in ("ddp", "fsdp2") for case in KINDS if (strategy, case) != ("fsdp2", "subspaces")]


def config_of(case, folder, corpus, questions, kept, more):  # noqa: F811
    cls, values, term = RESUMED[case]
    term = {} if term is None else retain(kept, batch_size=4, **term)
    return settings(corpus, questions, folder, cls, **merged({"model": {"init_args": values}}, term, more))


def test_two_processes_end_with_the_weights_of_one(corpus, questions, kept, tmp_path):  # noqa: F811
    runs = {one: tmp_path / " ".join(one) for one in CASES}
    entries = [{"config": config_of(case, folder, corpus, questions, kept, trainer(strategy))} for (strategy, case), folder in runs.items()]
    together(*by_slurm(entries))
    for case in KINDS:
        fit(config_of(case, tmp_path / case, corpus, questions, kept, {"data": {"init_args": {"micro_batch_size": 2}}}))
    for (strategy, case), folder in runs.items():
        expected = weights(tmp_path / case)
        for key, value in weights(folder).items():
            torch.testing.assert_close(
                value, expected[key], atol=2e-5, rtol=0, msg=lambda text, key=key, name=f"{strategy} {case}": f"{name} {key}: {text}"
            )
        assert run_json(folder)["tokens"] == run_json(tmp_path / case)["tokens"]
