"""What unlearning keeps and costs: the retained answers, the accuracy, and both against what was forgotten."""

from collections.abc import Iterable

from unlearn_lightning.records.statistics import drops
from unlearn_lightning.records.study_data import Study, TrainingPath
from unlearn_lightning.report.blocks import Block
from unlearn_lightning.report.chart import Chart, Line, averaged
from unlearn_lightning.report.curves import known, metric_panels, panels, with_level
from unlearn_lightning.report.outcomes import first, last, retention
from unlearn_lightning.report.section import Section, listed


class Kept(Section):
    """Figures of the retain probe and the accuracy."""

    place = 55
    heading = "What unlearning keeps"

    def draws(self) -> Iterable[str]:
        return [f"retain/{self.study.retain_name}_log_lik", "gsm8k/accuracy"]

    def blocks(self) -> Iterable[Block]:
        title, name = self.study.retain_title, self.study.retain_name
        retained = Chart(
            "retain", f"What happens to the {title} answers",
            f"Log-likelihood of {title} answers per token, in nats: they are not to be forgotten, so a good path stays level.",
            "unlearning step", f"{title} log-likelihood (nats/token)", metric_panels(self.study, "retain", f"retain/{name}_log_lik"),
        )  # fmt: skip
        return [retained, _accuracy(self.study), _frontier(self.study)]

    def sentences(self) -> Iterable[str]:
        names = list(dict.fromkeys(run.objective for run in self.study.finished("unlearn") if run.info.get("local") is False))
        return [f"Not local, as retain data takes part: {listed(names)}."] if names else []


def _accuracy(study: Study) -> Chart:
    def line(objective: str, path: TrainingPath) -> Line:
        curves = [curve for run in study.unlearned(objective, path) if len(curve := run.metric("gsm8k", "gsm8k/accuracy")) > 1]
        return averaged(path.label, (path.index,), [{0: first(curve), 1: last(curve)} for curve in known(curves)])

    caption = "Share of math problems answered correctly before and after unlearning: a line that falls is skill lost as a side effect."
    drawn = with_level(study, panels(study, line), "gsm8k", "gsm8k/accuracy")
    return Chart("accuracy", "Math accuracy before and after", caption, "", "accuracy", drawn, x_ticks=["before", "after"])


def _frontier(study: Study) -> Chart:
    def line(objective: str, path: TrainingPath) -> Line:
        runs = study.unlearned(objective, path)
        scores = averaged("", (), [drops(run.metric("forget", "forget/phrases_log_lik")) for run in runs])
        kept = averaged("", (), [retention(run.metric("retain", f"retain/{study.retain_name}_log_lik")) for run in runs])
        both = sorted(set(scores.x) & set(kept.x))
        x, y = ([of.y[of.x.index(step)] for step in both] for of in (scores, kept))
        low, high = ([limits[kept.x.index(step)] for step in both] if limits else [] for limits in (kept.low, kept.high))
        return Line(path.label, (path.index,), x, y, low, high)

    title = f"{study.retain_title} retention"
    caption = (
        f"Each point is a measured step, a mean over seeds: forget score so far (nats, to the right is better) against {title} "
        "(1 is untouched), with the 95% interval of the latter; a path whose line stays higher pays less for the same forgetting."
    )
    return Chart("frontier", "What forgetting costs", caption, "forget score (nats)", title, panels(study, line))
