"""Does it come back by a little more training? Steps until the unlearned model is back, and the retrained model beside it."""

from collections.abc import Iterable
from functools import cached_property
from itertools import groupby

from unlearn_lightning.records import Quantity
from unlearn_lightning.records.relearning import Relearned, Steps, first_back, mean_ratio, relearned, relearning_robustness
from unlearn_lightning.records.statistics import Curve, Estimate, Share, estimate
from unlearn_lightning.records.study_data import TrainingPath
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.chart import Chart, Line, Panel, averaged
from unlearn_lightning.report.columns import Column, Counted, Interval, Number, Paths, Text
from unlearn_lightning.report.section import Section


class Relearning(Section):
    """A table by objective and path, one of which path is back first, and the level at each step of relearning."""

    place = 63
    heading = "Does it come back by a little more training?"
    caption = (
        "Each unlearned and each retrained model was fine-tuned once more, alike. Steps: the first measured step at which the level is "
        "back to what it was before unlearning, less the tolerance (not interpolated; 0: it was never away). A model that is not back "
        "after the last step counts with that step, so that such means are lower bounds. Ratio: the unlearned model's steps over those "
        "of the retrained model to the same level; 1 as if never learned, near 0 only hidden. R: the retrained model's gain over the "
        "unlearned one's after all steps, at most 1 (OpenUnlearning). A model that lost little is soon back: read the steps beside "
        "what was lost."
    )

    def blocks(self) -> Iterable[Block]:
        yield self._steps()
        yield self._first()
        for name, found in self._found.items():
            yield self._curves(name, found)

    def problems(self) -> Iterable[str]:
        open_ = [run.name for run in self.study.runs if run.kind == "relearn" and run.status != "finished"]
        if open_:
            yield f"{len(open_)} relearning runs are not finished and left out, such as {open_[0]}"
        for name, found in self._found.items():
            if alone := [one for one in found if not one.retrained]:
                yield f"Relearning {name}: {len(alone)} unlearned models have no retrained model beside them, and so no ratio"
            if empty := [one for one in found if one.steps is None]:
                yield f"Relearning {name}: {self.study.relearning[name]['metric']} was not measured in {len(empty)} runs"

    @cached_property
    def _found(self) -> dict[str, list[Relearned]]:
        every = {name: relearned(self.study, name) for name in self.study.relearning}
        return {name: found for name, found in every.items() if found}

    def _steps(self) -> Table:
        columns: list[Column] = [Text("objective", heads=True), Paths(), *([Text("relearning", rank=1)] if len(self._found) > 1 else [])]
        columns += [
            Interval("lost", digits=2, rank=2), Interval("steps", digits=1, rank=0), Counted("not back", "not_back", rank=1),
            Interval("retrained model's", "retrained_steps", digits=1, rank=1),
            Counted("retrained model not back", "retrained_not_back", rank=2), Interval("ratio", digits=2, rank=0),
            Text("which is", "bound", rank=0), Interval("R", "robustness", digits=2, rank=1),
        ]  # fmt: skip
        table = Table("relearning", columns, on_terminal=True)
        for name, found in self._found.items():
            for (objective, path), members in groupby(found, key=lambda one: (one.objective, one.path)):
                seeds = list(members)
                own, never = ([one for one in steps if one] for steps in zip(*((s.steps, s.retrained_steps) for s in seeds), strict=True))
                ratio, bound = mean_ratio(one.ratio for one in seeds)
                lost = estimate(one.before - one.unlearned[min(one.unlearned)] for one in seeds if one.unlearned)
                robust = estimate(relearning_robustness(one.unlearned, one.retrained) for one in seeds)
                label = [name] if len(self._found) > 1 else []
                table.add(objective, path, *label, lost, _mean(own), _censored(own), _mean(never), _censored(never), ratio, bound, robust)
        return table

    def _first(self) -> Table:
        columns: list[Column] = [Text("objective", heads=True), *([Text("relearning")] if len(self._found) > 1 else []), Paths(rank=1)]
        columns += [
            Counted("back first, alone", "first", rank=0),
            Number("shares the first place", "tied", digits=0, rank=1),
            Text("chance"),
        ]
        heading = "Is the path that met the forget set last back first?"
        caption = "Chance is that of one path among all; a shared first place is no hit. It began nearest where it lost least."
        table = Table("relearning_first", columns, heading=heading, caption=caption, on_terminal=True)
        last = self.study.last_paths
        if len(last) != 1 or len(self.study.paths) < 2:
            return table
        for name, found in self._found.items():
            for objective, members in groupby(found, key=lambda one: one.objective):
                if hits := self._hits(list(members), last[0]):
                    label = [name] if len(self._found) > 1 else []
                    share = Share(sum(hit is True for hit in hits), len(hits))
                    table.add(objective, *label, last[0], share, sum(hit is None for hit in hits), f"1 in {len(self.study.paths)}")
        return table

    def _hits(self, found: list[Relearned], last: TrainingPath) -> list[bool | None]:
        """Of each seed of which every path is known, whether the last path is back first."""
        seeds = [[one for one in found if one.seed == seed and one.steps] for seed in sorted({one.seed for one in found})]
        return [first_back(paths, last) for paths in seeds if len(paths) == len(self.study.paths)]

    def _curves(self, name: str, found: list[Relearned]) -> Chart:
        panels = []
        for objective, of_objective in groupby(found, key=lambda one: one.objective):
            lines: list[Line] = []
            never: dict[int, Curve] = {}
            for path, members in groupby(of_objective, key=lambda one: one.path):
                seeds = list(members)
                lines.append(averaged(path.label, (path.index,), [one.unlearned for one in seeds]))
                never |= {one.seed: one.retrained for one in seeds if one.retrained}
            # The colour of the retrained model in all figures; as it learns, it is a line and no level.
            lines += [averaged("retrained model", (), list(never.values()), hues=(6,))] if never else []
            panels.append(Panel(objective, [line for line in lines if line.x]))
        metric = str(self.study.relearning[name]["metric"])
        quantity = self._quantity(metric)
        unit = f" ({quantity.unit})" if quantity.unit else ""
        heading = f"During relearning{f' ({name})' if len(self._found) > 1 else ''}"
        return Chart(f"relearning_{name}", heading, "Means over seeds.", "relearning step", f"{quantity.title}{unit}", panels)

    def _quantity(self, metric: str) -> Quantity:
        records = (run.records(metric.partition("/")[0]) for run in self.study.finished("relearn"))
        return next((Quantity.of(record[max(record)], metric) for record in records if record), Quantity(metric))


def _mean(steps: list[Steps]) -> Estimate:
    return estimate(float(one.count) for one in steps)


def _censored(steps: list[Steps]) -> Share:
    return Share(sum(one.censored for one in steps), len(steps))
