"""The forget probe against the step: the label, its logit margin and its paraphrases, path by path; variants side by side."""

from collections.abc import Iterable

from unlearn_lightning.report.blocks import Block
from unlearn_lightning.report.chart import Chart
from unlearn_lightning.report.curves import metric_line, metric_panels, with_level
from unlearn_lightning.report.section import Section
from unlearn_lightning.report.variants import variant_charts

CHARTS = (
    (
        "label", "Forgetting the label, step by step", "label log-likelihood (nats/token)", "forget/label_log_lik",
        "Log-likelihood of the unlearned label per token, in nats: a line that falls forgets, and a flat one has not begun to.",
    ),
    (
        "margin", "Is a flat line only saturation?", "label margin (nats)", "forget/label_margin",
        "The label's logit minus the best other logit, in nats: while it is far above zero the label can lose logits without losing "
        "likelihood, so a line that falls here while the one above stays flat has begun to forget.",
    ),
    (
        "paraphrases", "Does forgetting reach the paraphrases?", "paraphrase log-likelihood (nats/token)", "forget/paraphrase_log_lik",
        "Log-likelihood of rewordings of the label per token, in nats: deep forgetting lowers them too, superficial forgetting does not.",
    ),
)  # fmt: skip
"""Key, heading, y title, metric and caption of each figure."""


class Forgetting(Section):
    """Figures of the forget probe, which is about a label and its paraphrases."""

    place = 50
    heading = "Forgetting, step by step"

    def draws(self) -> Iterable[str]:
        return [metric for *_, metric, _ in CHARTS]

    def blocks(self) -> Iterable[Block]:
        study = self.study
        label, *others = (Chart(key, heading, caption, "unlearning step", y_title, metric_panels(study, "forget", metric))
                          for key, heading, y_title, metric, caption in CHARTS)  # fmt: skip
        by_variant = variant_charts(study, lambda objective, path: metric_line(study, "forget", "forget/label_log_lik", objective, path))
        for chart in by_variant:
            with_level(study, chart.panels, "forget", "forget/label_log_lik")
        # The same panels are not shown twice.
        shown = any({panel.title for panel in chart.panels} >= set(study.objectives) for chart in by_variant)
        return [*([] if shown else [label]), *by_variant, *others]
