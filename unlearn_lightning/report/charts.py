"""Every figure as plain numbers, before any drawing library: the page draws them with plotly.js, print with matplotlib.

charts(study, Distances(study))[0].panels[0].lines[0].y
"""

from collections.abc import Callable, Iterable
from itertools import combinations

from unlearn_lightning.report.chart import Chart, Line, Panel, averaged
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import first, last, utility
from unlearn_lightning.report.statistics import drops
from unlearn_lightning.report.study_data import RunRecord, Study, TrainingPath
from unlearn_lightning.report.variants import variant_charts

STEP_CHARTS = (
    (
        "label", "Forgetting the label, step by step", "label log-likelihood (nats/token)", "forget", "forget/label_log_lik",
        "Log-likelihood of the unlearned label per token, in nats: a line that falls forgets, and a flat one has not begun to.",
    ),
    (
        "margin", "Is a flat line only saturation?", "label margin (nats)", "forget", "forget/label_margin",
        "The label's logit minus the best other logit, in nats: while it is far above zero the label can lose logits without losing "
        "likelihood, so a line that falls here while the one above stays flat has begun to forget.",
    ),
    (
        "paraphrases", "Does forgetting reach the paraphrases?", "paraphrase log-likelihood (nats/token)",
        "forget", "forget/paraphrase_log_lik",
        "Log-likelihood of rewordings of the label per token, in nats: deep forgetting lowers them too, superficial forgetting does not.",
    ),
    (
        "retain", "What happens to the {retain} answers", "{retain} log-likelihood (nats/token)", "retain", "retain/{name}_log_lik",
        "Log-likelihood of {retain} answers per token, in nats: they are not to be forgotten, so a good path stays level.",
    ),
)  # fmt: skip
"""Charts of one metric against the step: key, heading, y title, probe, metric, caption."""


def charts(study: Study, distances: Distances) -> list[Chart]:
    """All figures that the study's probes allow, in reading order."""
    by_variant = variant_charts(study, lambda objective, path: _metric_line(study, "forget", "forget/label_log_lik", objective, path))
    shown = [{panel.title for panel in chart.panels} for chart in by_variant]
    label, *others = (_metric_chart(study, *texts) for texts in STEP_CHARTS)
    made = [
        *([] if any(titles >= set(study.objectives) for titles in shown) else [label]),  # The same panels are not shown twice.
        *by_variant,
        *others,
        _retrained_chart(study, distances),
        _pairs_chart(study, distances),
        _accuracy_chart(study),
        _frontier_chart(study),
    ]
    return [chart for chart in made if any(panel.lines for panel in chart.panels)]


def _metric_chart(study: Study, key: str, heading: str, y_title: str, probe: str, metric: str, caption: str) -> Chart:
    def of(text: str) -> str:
        return text.replace("{retain}", study.retain_title).replace("{name}", study.retain_name)

    def line(objective: str, path: TrainingPath) -> Line:
        return _metric_line(study, probe, of(metric), objective, path)

    return Chart(key, of(heading), of(caption), "unlearning step", of(y_title), _panels(study, line))


def _metric_line(study: Study, probe: str, metric: str, objective: str, path: TrainingPath) -> Line:
    return averaged(path.label, (path.index,), _metrics(study.unlearned(objective, path), probe, metric))


def _retrained_chart(study: Study, distances: Distances) -> Chart:
    def line(objective: str, path: TrainingPath) -> Line:
        curves = _known(distances.to_retrained(run) for run in study.unlearned(objective, path))
        return averaged(path.label, (path.index,), curves, log=True)

    caption = (
        "Squared distance of the predictions to those of the model that never saw the forget set, in nats², on a log axis: unlearning "
        "should bring every line down, whatever its path."
    )
    y_title = "squared distance (nats²)"
    return Chart("retrained", "Distance to the retrained model", caption, "unlearning step", y_title, _panels(study, line), log_y=True)


def _pairs_chart(study: Study, distances: Distances) -> Chart:
    panels = []
    for objective in study.objectives:
        lines = [
            averaged(pair_label(a, b), (a.index, b.index), distances.between_paths(objective, a, b), log=True)
            for a, b in combinations(study.paths, 2)
        ]
        panels.append(Panel(objective, [line for line in lines if line.x]))
    caption = (
        "Squared distance between the predictions of two paths after equally many steps, in nats², on a log axis: a straight rising line "
        "is exponential divergence. Line and marker colours name the two paths."
    )
    return Chart("paths", "Distance between paths", caption, "unlearning step", "squared distance (nats²)", panels, log_y=True)


def _accuracy_chart(study: Study) -> Chart:
    def line(objective: str, path: TrainingPath) -> Line:
        curves = [curve for curve in _metrics(study.unlearned(objective, path), "gsm8k", "gsm8k/accuracy") if len(curve) > 1]
        return averaged(path.label, (path.index,), [{0: first(curve), 1: last(curve)} for curve in curves])

    caption = "Share of math problems answered correctly before and after unlearning: a line that falls is skill lost as a side effect."
    return Chart("accuracy", "Math accuracy before and after", caption, "", "accuracy", _panels(study, line), x_ticks=["before", "after"])


def _frontier_chart(study: Study) -> Chart:
    def line(objective: str, path: TrainingPath) -> Line:
        runs = study.unlearned(objective, path)
        scores = averaged("", (), [drops(run.metric("forget", "forget/phrases_log_lik")) for run in runs])
        kept = averaged("", (), [utility(run.metric("retain", f"retain/{study.retain_name}_log_lik")) for run in runs])
        both = sorted(set(scores.x) & set(kept.x))
        x, y = ([of.y[of.x.index(step)] for step in both] for of in (scores, kept))
        low, high = ([limits[kept.x.index(step)] for step in both] if limits else [] for limits in (kept.low, kept.high))
        return Line(path.label, (path.index,), x, y, low, high)

    utility_title = f"{study.retain_title} utility"
    caption = (
        f"Each point is a measured step, a mean over seeds: forget score so far (nats, to the right is better) against {utility_title} "
        "(1 is untouched), with the 95% interval of the latter; a path whose line stays higher pays less for the same forgetting."
    )
    return Chart("frontier", "What forgetting costs", caption, "forget score (nats)", utility_title, _panels(study, line))


def pair_label(first_path: TrainingPath, second_path: TrainingPath) -> str:
    """Names a pair of paths as figures and tables do."""
    return f"{first_path.label} | {second_path.label}"


def _panels(study: Study, line: Callable[[str, TrainingPath], Line]) -> list[Panel]:
    """A panel per objective with a line per path; lines without a point are left out."""
    return [Panel(objective, [one for path in study.paths if (one := line(objective, path)).x]) for objective in study.objectives]


def _metrics(runs: Iterable[RunRecord], probe: str, metric: str) -> list[dict[int, float]]:
    return _known(run.metric(probe, metric) for run in runs)


def _known(curves: Iterable[dict[int, float]]) -> list[dict[int, float]]:
    return [curve for curve in curves if curve]
