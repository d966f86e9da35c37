"""Takes prompt and response out of a record, and drops no known part of one in silence.

    RecordFormat("prompt", "response").read(row)            # {"prompt": ..., "response": ...}, or {"messages": [...]}
    RecordFormat("instruction", "output").read(row)         # Alpaca's format: {"instruction": ..., "input": ..., "output": ...}

Some fields change what a prompt means wherever they occur, and are known by their names: they are used, or the record is refused. Any
other field (ids, scores, categories) says something about the record and is no part of the example.
"""

from __future__ import annotations

from dataclasses import dataclass

from unlearn_lightning.data.conversation import Conversation, read_conversation
from unlearn_lightning.sources.quoting import listed, quoted
from unlearn_lightning.sources.readers import SourceRecord, is_conversation

# Alpaca's prompt is the instruction and its input; Dolly calls the latter context.
INSTRUCTION, INPUTS = "instruction", ("input", "context")
CONVERSATIONS = ("messages", "conversations")
# Of a record; the second is Orca's.
SYSTEM = ("system", "system_prompt")
# Fields of earlier turns, tools and pictures, which the prompt may refer to.
UNSUPPORTED = ("history", "tools", "images", "videos", "audios")
# What can be done instead, where a record has such a field and the settings do not use it.
ADVICE = {
    INSTRUCTION: f"Alpaca's format is read with prompt_field {INSTRUCTION}.",
    **{name: f"To join it to the prompt, set input_field to {name}." for name in INPUTS},
    **{name: f"To read the conversation instead of the other fields, set prompt_field to {name}." for name in CONVERSATIONS},
    **dict.fromkeys(SYSTEM, "A system prompt is a text."),
    **dict.fromkeys(UNSUPPORTED, "It is not supported as a part of the prompt."),
}
KNOWN = frozenset(ADVICE)


@dataclass(frozen=True)
class RecordFormat:
    """Which fields of a record are its example.

    Args:
        prompt_field, response_field: names of the fields.
        response_text: one text as every response, instead of a field.
        alternative_field: name of the field with a second response; null for none.
        input_field: a field that is joined to the prompt behind a blank line, where it is not blank; null for `input` or `context`
            beside a prompt field `instruction`.
        ignore_fields: known fields that are dropped, because the settings say so.
        system_prompt: what a record's own system prompt has to be, if it has one.
        may_converse: whether a record without the prompt's field may be a conversation in `messages` or `conversations`, because nobody
            named that field.
    """

    prompt_field: str
    response_field: str
    response_text: str | None = None
    input_field: str | None = None
    ignore_fields: tuple[str, ...] = ()
    system_prompt: str = ""
    may_converse: bool = True
    alternative_field: str | None = None

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.ignore_fields) - KNOWN):
            raise ValueError(
                f"ignore_fields names {quoted(unknown[0])}. Only a field that would be used or refused needs it: "
                f"{listed(sorted(KNOWN), len(KNOWN))}."
            )

    def read(self, row: SourceRecord) -> tuple[str, str]:
        """The record's prompt and response.

        Raises:
            ValueError: a needed field is missing or no text, or the record holds something that would be dropped.
        """
        conversation = self._conversation(row)
        prompt = self._prompt(row, conversation)
        if self.response_text is not None:
            return prompt, self.response_text
        if conversation is not None and conversation.response is not None:
            if self.may_converse:
                self._refuse_second_response(row)
            return prompt, conversation.response
        if conversation is not None and self.response_field not in row.fields:
            raise ValueError(f"{row.where}: the conversation has no assistant turn, and there is no field {quoted(self.response_field)}.")
        return prompt, row.text(self.response_field)

    def alternative(self, row: SourceRecord) -> str | None:
        """The record's second response, a text or an assistant turn; None where the settings name no field for one.

        Raises:
            ValueError: the field is missing or no such thing.
        """
        name = self.alternative_field
        if name is None:
            return None
        turns = row.fields.get(name)
        if is_conversation(turns) and is_conversation(row.fields.get(self.prompt_field)):
            response = read_conversation(row, self.prompt_field, name).response
            if response is not None:
                return response
        return row.text(name)

    def prompt(self, row: SourceRecord) -> str:
        """The record's prompt alone, which needs no response.

        Raises:
            ValueError: as `read`.
        """
        return self._prompt(row, self._conversation(row))

    def _conversation(self, row: SourceRecord) -> Conversation | None:
        first = self.prompt_field
        if first not in row.fields and self.may_converse:
            first = next((name for name in CONVERSATIONS if name in row.fields and name not in self.ignore_fields), first)
        if not is_conversation(row.fields.get(first)):
            if first not in row.fields:
                row.text(first)  # raises: a name that is not there comes before what would be dropped
            self._refuse_dropped(row, {self.prompt_field, self.response_field, self.alternative_field or ""})
            return None
        self._refuse_dropped(row, {first, self.response_field, self.alternative_field or ""})
        answered = self.response_text is None and first == self.prompt_field and is_conversation(row.fields.get(self.response_field))
        found = read_conversation(row, first, *[self.response_field] * answered)
        self._check_system(row, found.system, SYSTEM[0])
        return found

    def _prompt(self, row: SourceRecord, conversation: Conversation | None) -> str:
        prompt = row.text(self.prompt_field) if conversation is None else conversation.prompt
        return "\n\n".join([prompt, *(row.text(name) for name in self._inputs(row))])

    def _inputs(self, row: SourceRecord) -> list[str]:
        """The fields that are joined to the prompt, without blank ones."""
        if self.input_field is not None:
            names: tuple[str, ...] = (self.input_field,)
            if self.input_field not in row.fields:
                row.text(self.input_field)
        else:
            names = INPUTS if self.prompt_field == INSTRUCTION else ()
        return [name for name in names if name not in self.ignore_fields and not _blank(row.fields.get(name))]

    def _refuse_dropped(self, row: SourceRecord, used: set[str]) -> None:
        there = KNOWN & row.fields.keys()
        if not there:
            return
        used = used | set(self.ignore_fields) | set(self._inputs(row))
        if self.prompt_field not in INPUTS:
            used.add(INSTRUCTION)  # It belongs to the prompt only where the prompt is the other half of Alpaca's format.
        for name in sorted(there - used):
            value = row.fields[name]
            if _blank(value):
                continue
            if name in SYSTEM and isinstance(value, str):
                self._check_system(row, value, name)
                continue
            raise ValueError(
                f"{row.where}: field {quoted(name)} is {quoted(value)}, and would be dropped. {ADVICE[name]} To train without it, set "
                f"ignore_fields to [{name}]."
            )

    def _refuse_second_response(self, row: SourceRecord) -> None:
        value = row.fields.get(self.response_field)
        if isinstance(value, str) and value.strip():
            raise ValueError(
                f"{row.where}: the conversation has an assistant turn, and field {quoted(self.response_field)} is {quoted(value)}. Which "
                "is the response? Set prompt_field to the conversation's field, or prompt_field and response_field to the others."
            )

    def _check_system(self, row: SourceRecord, system: str | None, name: str) -> None:
        if system and name not in self.ignore_fields and system.strip() != self.system_prompt.strip():
            raise ValueError(
                f"{row.where}: the record's system prompt is {quoted(system)}, but system_prompt is {quoted(self.system_prompt)}, and one "
                f"system prompt opens all conversations of a stage. Set system_prompt to it, or ignore_fields to [{name}]."
            )


def _blank(value: object) -> bool:
    return value is None or value in ([], {}) or (isinstance(value, str) and not value.strip())
