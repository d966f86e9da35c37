"""A section of the report: one file in `sections/`, or a plug-in's, which nothing else names.

class Lengths(Section):
    place = 55
    heading = "How long are the answers?"

    def blocks(self):
        table = Table("lengths", [Text("run"), Number("length", unit="tokens")], on_terminal=True)
        for run in self.study.finished("unlearn"):
            ...
        return [table]
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from unlearn_lightning.records.study_data import Study
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.chart import Chart
from unlearn_lightning.report.distances import Distances
from unlearn_lightning.report.outcomes import OutcomeRow, summarize


@dataclass
class Verdict:
    """What the report says first, in one sentence.

    Attributes:
        headline: the sentence.
        agrees: whether what the paper found is there; null where the data do not tell.
        weight: of several sections' verdicts the one of greatest weight is the report's.
        otherwise: what the section says where another section has the first word; empty for nothing.
    """

    headline: str
    agrees: bool | None = None
    weight: float = 0.0
    otherwise: str = ""


class Material:
    """What sections are made from; what several of them need is computed once.

    Args:
        study: the study, folder of runs or single run that the report is of.
        against: that of another study to compare with.
        match_at: the forget score (nats) at which paths are compared; null for the largest that all reach.
    """

    def __init__(self, study: Study, against: "Material | None" = None, match_at: float | None = None):
        self.study, self.against, self.match_at = study, against, match_at
        self.distances = Distances(study)
        self.left_out: list[str] = []
        """The sections of others that failed, in a line each."""
        self.drawn: set[str] = set()
        """The metrics that a section of their own draws, by their full names."""

    @cached_property
    def rows(self) -> list[OutcomeRow]:
        """One row per objective and path, over seeds; empty where nothing was unlearned."""
        return summarize(self.study, self.distances)


def listed(names: Sequence[str]) -> str:
    """`a, b and c`, for sentences that are computed."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


class Section:
    """Reads records and says what is in them; a section without a block to show is left out, and a block without content, too.

    Each method below may be left as it is. `place` orders the sections, from 0 at the top to 100 at the end; `heading` and `caption` may be
    set per class or, where they depend on the study, in `__init__`.
    """

    place: ClassVar[float] = 50
    heading: str = ""
    caption: str = ""

    def __init__(self, material: Material):
        self.material = material
        self.study = material.study

    @property
    def key(self) -> str:
        """The section's anchor on the page: its module's name."""
        return type(self).__module__.rpartition(".")[2]

    def blocks(self) -> Iterable[Block]:
        """Tables, figures and texts in reading order; nothing where the records are absent."""
        return []

    def draws(self) -> Iterable[str]:
        """The metrics that its figures show by step, path by path; the section of all probes need not draw them again."""
        return []

    def verdict(self) -> Verdict | None:
        """A candidate for the report's first sentence."""
        return None

    def sentences(self) -> Iterable[str]:
        """What the summary at the top says of it; empty sentences are left out."""
        return []

    def problems(self) -> Iterable[str]:
        """What is missing, cut or could not be measured, in a line each."""
        return []

    def summary(self) -> dict[str, Any]:
        """Entries of the report's summary, which is JSON."""
        return {}

    def said(self, verdict: Verdict) -> list[str]:
        """Its sentences in the summary, where `verdict` is the report's."""
        own = self.own_verdict
        lead = own.otherwise if own and own is not verdict else ""
        return [sentence for sentence in (lead, *self.sentences()) if sentence]

    @cached_property
    def own_verdict(self) -> Verdict | None:
        """The verdict, computed once."""
        return self.verdict()

    @cached_property
    def shown(self) -> list[Block]:
        """The blocks that have content."""
        return [block.readable() for block in self.blocks() if block]

    @property
    def on_page(self) -> list[Block]:
        """The blocks that the page shows."""
        return [block for block in self.shown if block.on_page]

    @property
    def tables(self) -> list[Table]:
        """Its tables with rows."""
        return [block for block in self.shown if isinstance(block, Table)]

    @property
    def charts(self) -> list[Chart]:
        """Its figures with lines."""
        return [block for block in self.shown if isinstance(block, Chart)]
