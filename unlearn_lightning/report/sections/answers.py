"""What models said before and after, side by side: a few generated texts of every probe that keeps some in its records."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from unlearn_lightning.records.measured import Group, groups, probes
from unlearn_lightning.records.study_data import RunRecord
from unlearn_lightning.report.blocks import Block, Table
from unlearn_lightning.report.columns import Column, Paths, Text
from unlearn_lightning.report.section import Section

PROMPTS, OPEN = 3, 12
"""How many prompts are shown, and how many rows before a table is folded."""
MOST_ROWS, MOST_TEXT = 60, 400
UNLEARNED = ("unlearn", "measured")


class Answers(Section):
    """A table for each probe that generates: of the first seed, a row per prompt and run."""

    place = 70
    heading = "What the models answer"

    def __init__(self, material: Any):
        super().__init__(material)
        seed = f" of seed {self.study.seeds[0]}" if len(self.study.seeds) > 1 else ""
        self.caption = (
            f"Generated answers{seed} at the first and at the last measured step. The prompts are those whose answers changed in the most "
            f"runs. Texts are cut at {MOST_TEXT} characters."
        )

    def blocks(self) -> Iterable[Block]:
        """Nothing where no probe generates."""
        members = groups(self.study, *UNLEARNED) or groups(self.study, "stage")
        for probe in probes(run for group in members for run in group.runs):
            yield self._table(probe, members)

    def _table(self, probe: str, members: Sequence[Group]) -> Table:
        paths = any(group.path for group in members)
        columns: list[Column] = [Text("prompt", rank=None, long=True), Text("run"), *([Paths()] if paths else [])]
        columns += [Text("before", rank=None, long=True), Text("after", rank=None, long=True), Text("in the data", rank=None, long=True)]
        table = Table(f"answers_{probe}", columns, heading=f"The probe {probe}")
        answers = {group.label: (group, _answers(group.runs[0], probe)) for group in members}
        prompts, left_out = _chosen([found for _, found in answers.values()]), 0
        for prompt in prompts:
            for group, found in answers.values():
                if prompt not in found:
                    continue
                text, before, after, said = found[prompt]
                if len(table.rows) == MOST_ROWS:
                    left_out += 1
                    continue
                table.add(text, group.name, *([group.path] if paths else []), before, after, said)
        if len(table.rows) > OPEN:
            table.folded = f"{len(table.rows)} answers" + (f" of {len(table.rows) + left_out}" if left_out else "")
        return table


Answer = tuple[str, str | None, str, str | None]
"""A prompt's text, the answers before and after, and the response in the data; null for what was not recorded."""


def _answers(run: RunRecord, probe: str) -> dict[str, Answer]:
    """By the example's id; empty where the probe generates nothing."""
    records = run.records(probe)
    if not records:
        return {}
    first, last = records[min(records)], records[max(records)]
    before = {one["id"]: text for one, text in _texts(first)} if len(records) > 1 else {}
    return {
        one["id"]: (
            _cut(str(one.get("text", ""))) or "",
            _cut(before.get(one["id"])),
            _cut(text) or "",
            _cut(_said(one, last["answer_field"])),
        )
        for one, text in _texts(last)
    }


def _texts(record: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str]]:
    """Examples with the text that was generated, the first where there are several attempts."""
    field = record.get("answer_field")
    for example in record.get("examples", []):
        found = example.get(field) if isinstance(field, str) else None
        if isinstance(found, list):
            found = found[0] if found else None
        if isinstance(found, str):
            yield example, found


def _said(example: dict[str, Any], answer_field: str) -> str | None:
    """The data's own response, where a probe records it."""
    found = next((example[name] for name in ("response", "answer") if name != answer_field and name in example), None)
    return None if found is None else str(found)


def _chosen(answers: Sequence[dict[str, Answer]]) -> list[str]:
    """The prompts whose answers changed in the most runs, and then those that come first."""
    changed = {name: 0 for found in answers for name in found}
    for found in answers:
        for name, (_, before, after, _) in found.items():
            changed[name] += before is not None and before != after
    return sorted(changed, key=lambda name: -changed[name])[:PROMPTS]


def _cut(text: str | None) -> str | None:
    return text if text is None or len(text) <= MOST_TEXT else text[: MOST_TEXT - 1] + "…"
