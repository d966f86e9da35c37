"""Memorisation by hand, at its limits, and against a plain greedy loop."""

import pytest
import torch

from callbacks import Memorisation
from callbacks.memorisation import exact_memorisation, extraction_strength
from unlearn_lightning.data import Encoded
from unlearn_lightning.modules import StageFineTuning

YES, NO = True, False


@pytest.mark.parametrize(
    ("said", "exact", "strength"),
    [
        ([YES, YES, YES, YES], 1.0, 1.0),
        ([NO, NO, NO, NO], 0.0, 0.0),
        ([YES, NO, YES, YES], 0.75, 0.5),
        ([YES, YES, YES, NO], 0.75, 0.0),
        ([NO, YES, YES, YES], 0.75, 0.75),
        ([YES], 1.0, 1.0),
        ([NO], 0.0, 0.0),
    ],
)
def test_by_hand(said, exact, strength):
    assert exact_memorisation(said) == exact
    assert extraction_strength(said) == strength


def test_what_is_said_is_what_plain_greedy_decoding_says(make_backbone):
    module = StageFineTuning(make_backbone())
    module.configure_model()
    module.eval()
    prompt, said = [6, 7, 8], []
    with torch.no_grad():
        for _ in range(6):
            said.append(int(module.net(input_ids=torch.tensor([prompt + said])).logits[0, -1].argmax()))
        other = [*said[:2], (said[2] + 1) % 320, *said[3:]]
        rows = Memorisation().predict(module, [], [Encoded("greedy", prompt, said), Encoded("other", prompt, other)], seed=0)
    assert (rows[0]["exact_memorisation"], rows[0]["extraction_strength"]) == (1.0, 1.0)
    assert rows[1]["exact_memorisation"] < 1
    assert rows[1]["extraction_strength"] <= 1 - 3 / 6
    without = Memorisation(with_end=False).predict(module, [], [Encoded("greedy", prompt, said)], seed=0)
    assert without[0]["tokens"] == 5


def test_a_response_that_is_its_end_alone_is_refused():
    probe = Memorisation(with_end=False)
    probe.encoded = [Encoded("long", [6], [7, 8]), Encoded("short", [6], [8])]
    with pytest.raises(ValueError, match=r"with_end is false, and 1 responses have one token only, such as short"):
        probe.check(None)
