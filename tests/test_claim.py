"""The demo study's scientific claim, one seed and gradient ascent: the paths part, and what was learned last is forgotten slowest.

`scripts/claim` is the same over three seeds with all paths and objectives.
"""

from pathlib import Path

import pytest
import yaml

from unlearn_lightning.main import main
from unlearn_lightning.records import read_records, read_study

DEMO = Path(__file__).parents[1] / "configs/studies/demo.yaml"


@pytest.mark.timeout(900)
def test_the_label_drops_least_where_the_forget_set_was_learned_last(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = yaml.safe_load(DEMO.read_text())
    # The first and the last position, without the retrained model, and without generating solutions.
    study |= {"positions": [1, 4], "retrained": False, "objectives": {"ga": study["objectives"]["ga"]}}
    study["probes"] = {"forget": study["probes"]["forget"]}
    study["stage_probes"] = []
    Path("study.yaml").write_text(yaml.safe_dump(study))
    assert main(["study", "study.yaml", "--jobs", "1"]) == 0

    curves = {}
    for run in read_study(Path("runs/demo"))["runs"]:
        if run["kind"] == "unlearn":
            records = read_records(Path("runs/demo") / run["folder"], "forget")
            curves[run["tags"]["p"]] = {step: record["metrics"] for step, record in records.items()}
    first, last = curves[1], curves[4]
    drops = [c[16]["forget/label_drop"] for c in (first, last)]
    margins = [c[0]["forget/label_margin"] for c in (first, last)]
    print(f"label drop p=1 {drops[0]:.2f}, p=4 {drops[1]:.2f}; margin before p=1 {margins[0]:.2f}, p=4 {margins[1]:.2f}")
    assert drops[1] < drops[0]
    # Part of the effect is saturation: before unlearning, the last path says the label by a margin and the first does not.
    assert margins[1] > 0 > margins[0]
    assert first[16]["forget/label_log_lik"] != last[16]["forget/label_log_lik"]
