"""Whether cost grows linearly in tokens: a fine-tuning step over four model sizes and four amounts of data, with fitted exponents."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from scripts.benchmarks.measure import Result, timed
from scripts.benchmarks.setting import DEVICE, PROMPT, RESPONSE, paper_like
from scripts.benchmarks.steps import Trained, selected
from unlearn_lightning.data import collate
from unlearn_lightning.models.flops import Matrices

# Layers and width; each has about three times the matrix weights of the one before.
SIZES = ((2, 128), (4, 192), (4, 384), (8, 512))
EXAMPLES = (4, 8, 16, 32)
VOCABULARY = 8192
AT_ONCE = 4


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y against log x by least squares."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def scaling(repeats: int = 3) -> list[Result]:
    """Passes of GA with LoRA over 4 to 32 examples of 96 + 32 tokens, 4 at once."""
    times: dict[tuple[int, int], float] = {}
    flops: dict[int, int] = {}
    for number, (layers, hidden) in enumerate(SIZES):
        trained = Trained(VOCABULARY, layers=layers, hidden=hidden, heads=hidden // 64)
        flops[number] = Matrices.of(trained.net).training_flops(PROMPT + RESPONSE, RESPONSE)
        batches = [collate(paper_like(AT_ONCE), 0).to(DEVICE)] * (max(EXAMPLES) // AT_ONCE)

        def pass_over(count: int, trained: Trained = trained, batches: list = batches) -> None:
            for batch in batches[: count // AT_ONCE]:
                trained.step(selected(trained.net, batch))

        measured = timed({str(n): (lambda n=n: pass_over(n)) for n in EXAMPLES}, repeats)  # type: ignore[misc]
        times |= {(number, n): measured[str(n)] for n in EXAMPLES}
    found = []
    for number, (layers, hidden) in enumerate(SIZES):
        row = [times[number, n] for n in EXAMPLES]
        speed = f"{row[-1] / EXAMPLES[-1] * 1000:.1f} ms per example; {flops[number] * EXAMPLES[-1] / row[-1] / 1e9:.1f} GFLOP/s"
        slope = exponent(EXAMPLES, row)
        found.append(_line(f"seconds against tokens, {layers} layers of {hidden}", slope, f"{speed} at {EXAMPLES[-1]} examples"))
    for n in EXAMPLES:
        slope = exponent([flops[i] for i in flops], [times[i, n] for i in flops])
        spread = f"FLOPs per example grow {math.prod([flops[len(SIZES) - 1]]) / flops[0]:.0f}-fold"
        found.append(_line(f"seconds against FLOPs per token, {n} examples", slope, spread))
    return found


def _line(case: str, slope: float, note: str) -> Result:
    return Result("scaling exponent", "1 is linear", case, "", slope, None, slope, note=note)
