"""Reads a conversation with one question and one answer, as OpenAI, TRL and ShareGPT write it.

{"messages": [{"role": "system", "content": "..."}, {"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}
{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from unlearn_lightning.sources.quoting import first_few, listed, quoted
from unlearn_lightning.sources.readers import SourceRecord

ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant",
}  # fmt: skip
# What a message may hold beside its text, and what a model that is trained on the text alone would never see.
OTHER_CONTENT = ("tool_calls", "function_call", "thinking", "reasoning_content")
SUPPORTED = "Supported are one user turn and one assistant turn, with or without a system turn before them"


@dataclass(frozen=True)
class Conversation:
    """The texts of a conversation; `response` is null where the user's turn is the last one."""

    system: str | None
    prompt: str
    response: str | None


def read_conversation(row: SourceRecord, *fields: str) -> Conversation:
    """The conversation whose turns stand in a row's fields, in this order.

    Raises:
        ValueError: it has other turns than supported, or a turn is no text; the message names the row and the turns.
    """
    turns = [_turn(row, field, message) for field in fields for message in row.fields[field]]
    system = turns.pop(0)[1] if turns and turns[0][0] == "system" else None
    if [role for role, _ in turns] not in (["user"], ["user", "assistant"]):
        roles = ["system"] * (system is not None) + [role for role, _ in turns]
        raise ValueError(
            f"{row.where}: field {quoted(fields[0])} holds the turns {first_few(roles)}. {SUPPORTED}: leave longer conversations out, or "
            "write each answer as a record of its own."
        )
    return Conversation(system, turns[0][1], turns[1][1] if len(turns) > 1 else None)


def _turn(row: SourceRecord, field: str, message: Any) -> tuple[str, str]:
    named = message.get("role", message.get("from"))
    role = ROLES.get(named) if isinstance(named, str) else None
    text = _text(message.get("content", message.get("value")))
    if role is None:
        raise ValueError(f"{row.where}: field {quoted(field)} has a turn of the role {quoted(named)}; known are {listed(ROLES)}.")
    if other := [name for name in OTHER_CONTENT if message.get(name)]:
        raise ValueError(f"{row.where}: a turn in field {quoted(field)} has {quoted(other[0])}, which is not supported. {SUPPORTED}.")
    if message.get("weight", 1) in (0, False):
        raise ValueError(f"{row.where}: a turn in field {quoted(field)} has the weight 0, which is not supported. {SUPPORTED}.")
    if text is None or (not text.strip() and role != "system"):
        raise ValueError(
            f"{row.where}: the {role} turn in field {quoted(field)} is {quoted(message.get('content', message.get('value')))}; expected a "
            "non-empty text."
        )
    return role, text


def _text(content: Any) -> str | None:
    """A message's text, which OpenAI also writes as a list of parts; None where it is something else."""
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in content):
        return "".join(part["text"] for part in content)
    return None
