"""Further stages after the forget stage, and how much the path decides: with curves to redo by hand."""

import math

import pytest
from test_report_study_data import STAGES, StudyWriter, section_of

from unlearn_lightning.records.statistics import Share, estimate
from unlearn_lightning.records.study_data import load_study
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.sections.dependence import changes_table, dependence_table, spread
from unlearn_lightning.report.sections.further_stages import further_chart, further_stages, further_table, series
from unlearn_lightning.report.sections.kept import Kept


def further_study(folder, drops, seeds=(1, 2)):
    """Named paths: p1, last, and last with one or two further stages; `drops` gives each path's label drop by seed."""
    writer = StudyWriter(folder)
    paths = {
        "last+2": [*STAGES, "safety", "more", "still"], "p1": ["safety", *STAGES], "last": [*STAGES, "safety"],
        "last+1": [*STAGES, "safety", "more"],
    }  # fmt: skip
    for name, path in paths.items():
        for seed in seeds:
            tags = {"path": path, "p": path.index("safety") + 1, "path_name": name}
            falling = {0: 0.0, 4: -drops[name][seed - 1]}
            writer.unlearn(seed, 4, f"ga/{name}", label=falling, phrases=falling, margin=falling, more_tags={**tags, "objective": "ga"})
    return load_study(writer.write())


def test_the_share_of_seeds_by_further_stages(tmp_path):
    # last: slower than p1 in both seeds; with one more in the second only; with two in none (a tie is no hit).
    study = further_study(tmp_path, {"p1": (3.0, 3.0), "last": (1.0, 2.0), "last+1": (4.0, 2.5), "last+2": (3.0, 9.0)})
    members, rivals = series(study)
    assert [path.label for path in members] == ["last", "last+1", "last+2"]
    assert [path.label for path in rivals] == ["p1"]
    found = further_stages(study, "label_drop")
    assert [(one.stages, one.share) for one in found] == [(0, Share(2, 2)), (1, Share(1, 2)), (2, Share(0, 2))]
    assert [one.drop.mean for one in found] == [1.5, 3.25, 6.0]
    assert further_table(study).texts()[1][:4] == ["GA", "1", found[1].drop.text(), "1 of 2 (9% to 91%)"]
    label = further_chart(study).panels[0]
    assert (label.title, label.lines[0].x, label.lines[0].y) == ("GA: label", [0.0, 1.0, 2.0], [1.0, 0.5, 0.0])
    low, high = Share(2, 2).interval
    assert (label.lines[0].low[0], label.lines[0].high[0]) == (low, high)


def test_what_the_path_decides_by_hand(tmp_path):
    writer = StudyWriter(tmp_path)
    falls = {1: (2.0, 4.0), 2: (3.0, 3.0)}  # seed -> label drop of p=1 and of p=4
    for seed, drops in falls.items():
        for p, drop, end in zip((1, 4), drops, (3.0, 5.0), strict=True):
            writer.unlearn(
                seed, p, "ga", label={0: 0.0, 4: -drop}, phrases={0: 0.0, 4: -drop}, tofu={0: -1.0, 4: -1.0 - drop / 10},
                accuracy={0: 0.5, 4: 0.5}, vectors={0: {"a": [0.0 if p == 1 else 2.0]}, 4: {"a": [0.0 if p == 1 else end]}},
            )  # fmt: skip
    writer.unlearn(3, 1, "ga", label={0: 0.0, 4: -99.0})  # the seed lacks p=4
    study = load_study(writer.write())
    [row] = dependence_table(study, Distances(study)).texts()
    # Means 3 and 3; spreads 2 and 0; relative 2/3 and 0. At equal forgetting both have lost as much: retention does not differ.
    assert [cell.partition(" ± ")[0] for cell in row] == [
        "GA", "3.00", "1.00", "0.33", "3.00", "1.00", "0.33", "0.000", "0.000", "25", "6.25",
    ]  # fmt: skip


def test_variants_are_compared_seed_by_seed(tmp_path):
    writer = StudyWriter(tmp_path)
    # Label drops of p=1 and p=4 by seed: relative spreads 2/3 and 1 at the low rate, 1/2 and 1/2 at the high one.
    falls = {"2e-05": {1: (2.0, 4.0), 2: (3.0, 1.0)}, "0.0001": {1: (3.0, 5.0), 2: (6.0, 10.0), 3: (1.0, 9.0)}}
    for lr, seeds in falls.items():
        for seed, drops in seeds.items():
            for p, drop in zip((1, 4), drops, strict=True):
                tags = {"objective": "ga", "lr": float(lr)}
                writer.unlearn(seed, p, f"ga-{lr}", label={0: 0.0, 4: -drop}, more_tags=tags)
    study = load_study(writer.write())
    [row] = changes_table(study, Distances(study)).texts()
    # Both seeds that have both: 1/2 - 2/3 and 1/2 - 1; the third has no low rate to be compared with.
    assert row[:3] == ["GA · lr=0.0001", "GA · lr=2e-05", "2"]
    assert row[3] == estimate([1 / 2 - 2 / 3, 1 / 2 - 1]).text(2, signed=True) == "−0.33 ± 2.12"


def test_a_spread_needs_all_values():
    assert spread([1.0, 4.0, 2.0]) == 3.0
    assert math.isnan(spread([1.0, math.nan]))
    assert math.isnan(spread([1.0]))


@pytest.mark.parametrize(("local", "said"), [(False, True), (True, False)])
def test_objectives_that_are_not_local_are_named(local, said, tmp_path):
    writer = StudyWriter(tmp_path)
    for p in (1, 4):
        writer.unlearn(1, p, "ga", label={0: 0.0, 2: -1.0}, more_tags={"retain": "tofu"}, local=local)
    sentences = section_of(Kept, writer.write()).sentences()
    assert any("Not local, as retain data takes part: GA · retain=tofu." in one for one in sentences) is said
