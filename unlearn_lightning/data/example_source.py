"""Where a stage's examples come from: built in, from files or from the Hub, and which of them are held out.

    stage = TofuStage(source="files", held_out_examples=100)
    stage.examples("train")       # [Example("tofu-train-00000", "Who is ...?", "She is ..."), ...]
    stage.account()               # tofu: 3,900 of 4,000 examples trained on, 100 held out (by prompt)

Nothing here knows tokens or Lightning.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from typing import ClassVar, Literal

from unlearn_lightning.data.examples import Example
from unlearn_lightning.data.leave_out import JSONValue, leave_out
from unlearn_lightning.data.record_format import RecordFormat
from unlearn_lightning.sources.line_records import pick
from unlearn_lightning.sources.quoting import first_line
from unlearn_lightning.sources.readers import HUB, SourceRecord, data_root, read_rows

Split = Literal["train", "held_out"]
HELD_OUT = 128
"""How many examples are held out where nothing else is said and something is."""


class ExampleSource:
    """The examples of one stage as text; `StageData` gives it its settings."""

    stage_name: ClassVar[str] = "chat"
    train_file: ClassVar[str | None] = None
    held_out_file: ClassVar[str | None] = None
    hub_name: ClassVar[str | None] = None
    hub_held_out_split: ClassVar[str | None] = None
    fields: ClassVar[tuple[str, str]] = ("prompt", "response")
    hub_prompt_field: ClassVar[str | None] = None
    hub_response_text: ClassVar[str | None] = None
    hub_leave_out: ClassVar[dict[str, list[JSONValue]]] = {}
    world_examples: ClassVar[int] = 512

    source: str
    held_out_source: str | None
    data_root: str | None
    train_examples: int | None
    held_out_examples: int
    prompt_field: str
    response_field: str
    leave_out: dict[str, list[JSONValue]]
    prompt_template: str
    data_seed: int
    record_format: RecordFormat

    # --- what a stage may override --------------------------------------------------------------------------------------------

    def world_rows(self, count: int, split: Split) -> list[dict[str, str]]:
        """The built-in examples of this stage; stages without any raise."""
        raise ValueError(f"{type(self).__name__} has no built-in data: set source to a file or to hub:owner/name.")

    def response(self, text: str) -> str:
        """Changes a response's text before it is used; stages may override it."""
        return text

    def prompt(self, row: SourceRecord) -> str:
        """Returns the text by which records count as the same question: records with one prompt are never on both sides of the split."""
        return self.record_format.prompt(row)

    @classmethod
    def divides(cls, source: str, held_out_source: str | None) -> bool:
        """Whether held-out examples would be a part of `source`, which training then never sees."""
        own = (source == "files" and cls.held_out_file) or (source == "hub" and cls.hub_held_out_split)
        return source != "world" and held_out_source is None and not own

    @property
    def usual_split(self) -> Split:
        """What is measured where nobody says it: held-out examples, or those that are trained on where none are held out."""
        return "held_out" if self.held_out_examples else "train"

    # --- examples -------------------------------------------------------------------------------------------------------------

    def examples(self, split: Split) -> list[Example]:
        """The stage's examples as text.

        Raises:
            FileNotFoundError, ValueError: the source is missing, empty, not JSON, or lacks the needed fields.
        """
        return list(self._of_rows(split))

    def each_example(self, split: Split) -> Iterator[Example]:
        """The examples one after the other, which need not be in memory together."""
        is_ours = type(self).examples is ExampleSource.examples
        yield from self._of_rows(split) if is_ours else self.examples(split)

    def _of_rows(self, split: Split) -> Iterator[Example]:
        for i, row in enumerate(self.rows(split)):
            yield self.example(f"{self.stage_name}-{split}-{i:05d}", row)

    def example(self, name: str, row: SourceRecord) -> Example:
        """The example of a record; stages may make it in another way."""
        prompt, response = self.record_format.read(row)
        second = self.record_format.alternative(row)
        second = None if second is None else self.response(second)
        return Example(name, self.prompt_template.replace("{prompt}", prompt), self.response(response), second)

    def fingerprint(self, split: Split = "train") -> str:
        """A hash of all that the examples say, so that an edited file or another source is noticed."""
        # The JSON of a list of all of them, made piece by piece.
        content, before = hashlib.sha256(b"["), ""
        for example in self.each_example(split):
            said = [v for name, v in vars(example).items() if name != "id" and v is not None]
            content.update(f"{before}{json.dumps(said)}".encode())
            before = ", "
        content.update(b"]")
        return content.hexdigest()

    def location(self) -> str:
        """Where the training examples come from: `world`, a file's path or `hub:...`."""
        return self._resolve(self.source, self.train_file)

    def account(self, too_long: int = 0, use: str = "trained on") -> str:
        """One line: how many examples are trained on, held out, left out and repeated.

        Args:
            too_long: examples that are not trained on, because their prompts fill max_length.
            use: what is done with the examples: `trained on`, `unlearned` or `retained`.
        """
        train = self.rows("train")
        prompts = frozenset(self._prompts(train))
        parts = [f"{len(train) - too_long:,} of {len(self.source_rows()):,} examples {use}", self._held_out_account(prompts)]
        if repeats := len(train) - len(prompts):
            parts.append(f"{repeats:,} of those {use} repeat the prompt of another")
        if left_out := self._read[1]:
            parts.append(f"{left_out:,} left out by {', '.join(self.leave_out)}")
        if too_long:
            parts.append(f"{too_long:,} left out with prompts that fill max_length")
        return f"{self.stage_name}: {', '.join(parts)}"

    def _held_out_account(self, trained: frozenset[bytes]) -> str:
        if not self.held_out_examples:
            return "none held out"
        if self._is_split_by_prompt:
            asked = f" of {self.held_out_examples:,} asked for" if len(self._split[0]) < self.held_out_examples else ""
            return f"{len(self._split[0]):,}{asked} held out (by prompt)"
        try:
            held_out = list(self._prompts(self.rows("held_out")))
        except (OSError, ValueError) as error:
            # A training run that measures nothing on them does not need them.
            return f"held-out examples that cannot be read ({first_line(error)})"
        both = sum(prompt in trained for prompt in held_out)
        also = f", {both:,} of them with a prompt that is trained on" if both else ""
        place, split = self._held_out_place
        name = f"{place} {split}" if place.startswith(HUB) else place
        return f"{len(held_out):,} held out ({name}){also}"

    # --- records --------------------------------------------------------------------------------------------------------------

    def rows(self, split: Split) -> Sequence[SourceRecord]:
        """The records behind `examples`."""
        return self._held_out_rows if split == "held_out" else self._train_rows

    def source_rows(self) -> Sequence[SourceRecord]:
        """All records of `source` in its own order, without those that are left out."""
        return self._read[0]

    @cached_property
    def _read(self) -> tuple[Sequence[SourceRecord], int]:
        """The records of `source`, and how many were left out."""
        if self.source == "world":
            return self._world(self.train_examples or self.world_examples, "train"), 0
        rows = read_rows(self.location())
        kept = leave_out(rows, self.leave_out)
        if kept:
            # Where all records lack a field, the first is named, and not the one that happens to be drawn first.
            self.prompt(kept[0])
        return kept, len(rows) - len(kept)

    @cached_property
    def _train_rows(self) -> Sequence[SourceRecord]:
        rows = self._split[1] if type(self).divides(self.source, None) else self.source_rows()
        if self.train_examples is not None and len(rows) < self.train_examples:
            raise ValueError(f"{self.source}: {self.train_examples} training examples were asked for, but there are {len(rows)}.")
        return rows[: self.train_examples]

    @cached_property
    def _held_out_rows(self) -> Sequence[SourceRecord]:
        if self._is_split_by_prompt:
            return self._split[0]
        place, split = self._held_out_place
        if place == "world":
            return self._world(self.held_out_examples, "held_out")
        return read_rows(place, split)[: self.held_out_examples]

    @cached_property
    def _split(self) -> tuple[Sequence[SourceRecord], Sequence[SourceRecord]]:
        """The held-out rows of `source` and the others, in one order, whether held-out examples come from here or from elsewhere."""
        rows, count = self.source_rows(), self.held_out_examples if self._is_split_by_prompt else 0
        if len(rows) <= count:
            raise ValueError(
                f"{self.source} holds {len(rows)} records, and {count} of them are to be held out: nothing is left to "
                "train on. Lower held_out_examples or name a held_out_source."
            )
        if not count:
            return rows[:0], pick(rows, shuffled(len(rows), self.data_seed))
        held_out, train = parted(rows, self.held_out_places(count), self.data_seed)
        if not held_out:
            raise ValueError(
                f"{self.source}: every prompt stands in more records than the {count} that are to be held out, and all "
                "records of one prompt are held out together. Raise held_out_examples, set it to 0, or name a held_out_source."
            )
        return held_out, train

    def held_out_places(self, count: int) -> list[int]:
        """Which records of `source` are held out, at most `count`; all of them are read for it, as whole prompts are held out."""
        return places_by_prompt(list(self._prompts(self.source_rows())), count, self.data_seed)

    @property
    def _is_split_by_prompt(self) -> bool:
        return self.divides(self.source, self.held_out_source)

    @property
    def _held_out_place(self) -> tuple[str, str]:
        """Where held-out examples of their own come from, and which split of it they are."""
        place = self._resolve(self.held_out_source or self.source, self.held_out_file)
        on_hub = self.hub_name is not None and place == HUB + self.hub_name
        return place, (on_hub and self.hub_held_out_split) or "train"

    def prompt_digests(self, split: Split) -> Iterator[bytes]:
        """A digest of each record's prompt, so that stages can be compared."""
        return self._prompts(self.rows(split))

    def _prompts(self, rows: Sequence[SourceRecord]) -> Iterator[bytes]:
        """A digest of each row's prompt, because whole prompts may be many; white space around it makes no other prompt."""
        return (hashlib.blake2b(self.prompt(row).strip().encode(), digest_size=16).digest() for row in rows)

    def _world(self, count: int, split: Split) -> list[SourceRecord]:
        return [SourceRecord(f"world {self.stage_name} {split}[{i}]", dict(row)) for i, row in enumerate(self.world_rows(count, split))]

    def _resolve(self, source: str, file: str | None) -> str:
        if source == "files":
            if file is None:
                raise ValueError(f"{type(self).__name__} has no usual file: give source a path.")
            return str(data_root(self.data_root) / file)
        if source == "hub":
            if self.hub_name is None:
                raise ValueError(f"{type(self).__name__} has no usual Hub data set: give source hub:owner/name.")
            return HUB + self.hub_name
        return source


def shuffled(count: int, seed: int) -> list[int]:
    """The numbers below `count` in the order of a seed."""
    order = list(range(count))
    random.Random(seed).shuffle(order)
    return order


def places_by_prompt(prompts: Sequence[Hashable], count: int, seed: int) -> list[int]:
    """Chooses at most `count` rows to be held out, whole prompts at a time, so that no prompt is both held out and trained on.

    Prompts are taken in a shuffled order, and one with more rows than there is still room for is trained on. Where every prompt stands
    in one row, exactly `count` rows are held out.

    Args:
        prompts: of each record, or what stands for it.
        count: rows to be held out.
        seed: of the order.
    """
    order = shuffled(len(prompts), seed)
    sizes, chosen, room = Counter(prompts), set[Hashable](), count
    for i in order:
        if sizes[prompts[i]] <= room and prompts[i] not in chosen:
            chosen.add(prompts[i])
            room -= sizes[prompts[i]]
    return [i for i in order if prompts[i] in chosen]


def parted(rows: Sequence[SourceRecord], held_out: Iterable[int], seed: int) -> tuple[Sequence[SourceRecord], Sequence[SourceRecord]]:
    """The rows that are held out and the others, both in the shuffled order."""
    chosen, order = set(held_out), shuffled(len(rows), seed)
    return pick(rows, (i for i in order if i in chosen)), pick(rows, (i for i in order if i not in chosen))
