"""The chat template as a function of the conversation alone: its date is a setting, and what it would change in silence is refused.

chat = ChatFormat(tokenizer, system_prompt="Be kind.")
prompt, response = chat.turn("Who?", "Ann.")            # "<|system|>Be kind.<|end|><|user|>Who?<|end|><|assistant|>", "Ann.<|end|>"
prompt_ids, response_ids = chat.tokens(prompt), chat.tokens(response)

Special tokens that are typed in a conversation are marked in these texts (by transformers), and `tokens` reads them as plain text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import encode_marked_chat, mark_control_tokens

from unlearn_lightning.inference.batch_tokens import batch_tokens
from unlearn_lightning.inference.template_date import with_fixed_date
from unlearn_lightning.inference.template_limits import TemplateLimit, limited

# What Llama-3.x's template itself prints where it has no clock.
DATE, DATE_FORMAT = "26 Jul 2024", "%d %b %Y"
# These texts stand for a conversation's parts, to see what the template writes around them.
SYSTEM, PROMPT, RESPONSE = "0system0", "0prompt0", "0response0"
# The character that transformers puts before a typed special token.
TYPED = mark_control_tokens("x", re.compile("x"))[0]
# Characters that no template needs around a conversation.
LONGEST = 1_000_000
# Characters of a template; the longest of those in use have 20,000.
LONGEST_TEMPLATE = 1_000_000
ANOTHER = "Set backbone.chat_template_from to a tokenizer whose template"


@dataclass(frozen=True)
class ChatSettings:
    """What a tokenizer's conversations are rendered with; `Backbone.load_tokenizer` hands it over as `tokenizer.chat_settings`.

    Args:
        date: what the template prints as today's, such as "26 Jul 2024".
        template: where the template comes from, for messages; empty for the tokenizer's own name.
        ends: tokens that end the model's own generation.
    """

    date: str = DATE
    template: str = ""
    ends: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        try:
            datetime.strptime(self.date, DATE_FORMAT)
        except ValueError:
            raise ValueError(f"backbone.template_date must be a date such as {DATE!r}, got {self.date!r}.") from None


class ChatFormat:
    """Renders conversations of one prompt and one response, always in the same way.

    Args:
        tokenizer: with a chat template.
        system_prompt: opens every conversation; empty for none.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system_prompt: str = "") -> None:
        self.tokenizer: Any = tokenizer
        self.settings: ChatSettings = getattr(tokenizer, "chat_settings", ChatSettings())
        self._system = self._marked(system_prompt)
        name = self.settings.template or tokenizer.name_or_path
        self._tried = False
        self._name = f"The chat template of {name}" if name else "The tokenizer's chat template"

    def prompt(self, prompt: str) -> str:
        """The text up to where the assistant starts to speak, with what the template writes before a response of no special form.

        Raises:
            ValueError: the template fails, or changes the prompt or the system prompt.
        """
        return self._prompt(self._marked(prompt)) + self._before[0]

    def response_start(self, text: str) -> str:
        """The beginning of a response, as training has it: Llama-2's template puts a space before it, most nothing."""
        return self._before[1] + self._marked(text)

    def turn(self, prompt: str, response: str) -> tuple[str, str]:
        """Prompt and response as texts. Their concatenation is what the template makes of both, less white space at the end.

        What the template inserts before the response, such as the empty think block of Qwen3, belongs to the prompt, and the end of turn
        to the response.

        Raises:
            ValueError: the template fails, or changes prompt, system prompt or response.
        """
        prompt, response = self._marked(prompt), self._marked(response)
        start = self._prompt(prompt)
        return self._parted(start, self._after_prompt(start, prompt, response), response)

    def turns(self, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """`turn` of many prompts and responses, which the template renders in two calls."""
        said = [(self._marked(prompt), self._marked(response)) for prompt, response in pairs]
        starts = self._render_all([[*self._opening, _said("user", prompt)] for prompt, _ in said], prompt=True)
        both = [[*self._opening, _said("user", prompt), _said("assistant", response)] for prompt, response in said]
        found = []
        for (prompt, response), start, full in zip(said, starts, self._render_all(both), strict=True):
            self._check_prompt(start, prompt)
            found.append(self._parted(start, self._cut(full, start), response))
        return found

    def _parted(self, start: str, rest: str, response: str) -> tuple[str, str]:
        """Prompt and response, where the template makes `start` of the prompt and puts `rest` behind it."""
        inserted, space = self._before
        # A response that brings a think block of its own gets none inserted.
        for block, frame in ((inserted, inserted + space), ("", "")):
            if _within(rest, frame, self._end, response):
                # Qwen's line break after the end of turn, for one, never has to be said.
                return start + block, rest[len(block) :].rstrip()
        raise ValueError(
            f"{self._name} changes the response: it begins with {response[:40]!r}, and {rest[:60]!r} was made of it. "
            f"{ANOTHER} writes the response as it is, or change the data."
        )

    def tokens(self, text: str) -> list[int]:
        """A rendered text's tokens, in which typed special tokens are text."""
        found: list[int]
        found = encode_marked_chat(self.tokenizer, text) if TYPED in text else self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """`tokens` of many texts, which the tokenizer reads in one call."""
        found: list[list[int]] = []
        if plain := [text for text in texts if TYPED not in text]:
            found = batch_tokens(self.tokenizer, plain)
        waiting = iter(found)
        return [self.tokens(text) if TYPED in text else next(waiting) for text in texts]

    def plain_tokens(self, text: str) -> list[int]:
        """The tokens of a text outside any conversation, in which all is text."""
        return self.tokens(self._marked(text))

    def plain_tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """`plain_tokens` of many texts."""
        return self.tokens_of([self._marked(text) for text in texts])

    @cached_property
    def ends(self) -> frozenset[int]:
        """Every token known to end a response: the tokenizer's, the model's, and the special token the template closes a response with."""
        closed = self._render([*self._opening, _said("user", PROMPT), _said("assistant", RESPONSE)]).rstrip()
        closing = {token for token in self.tokens(closed)[-1:] if self._is_special(token)}
        return frozenset({self.tokenizer.eos_token_id, *closing, *self.settings.ends} - {None})

    def _is_special(self, token: int) -> bool:
        # A base model's tokenizer knows its sibling's end of turn as a special token without a role, which all_special_ids leaves out.
        added = self.tokenizer.added_tokens_decoder.get(token)
        return token != self.tokenizer.unk_token_id and (token in self.tokenizer.all_special_ids or getattr(added, "special", False))

    def check_end(self, response_ids: list[int]) -> None:
        """Refuses a whole response that generation would not end where training ends it.

        Raises:
            ValueError: its last token ends no generation.
        """
        if response_ids[-1] not in self.ends:
            said, ends = self.tokenizer.convert_ids_to_tokens(response_ids[-4:]), self.tokenizer.convert_ids_to_tokens(sorted(self.ends))
            raise ValueError(
                f"{self._name} lets a response end with the tokens {said}, but generation ends at {ends} only, so a model trained on it "
                f"would never stop. {ANOTHER} closes a response with a token of this tokenizer."
            )

    # --- what the template writes around a conversation's parts ----------------------------------------------------------------

    @cached_property
    def _frame(self) -> str:
        """What the template makes of PROMPT and the system prompt, which it must keep."""
        if not self._system:
            return self._render([_said("user", PROMPT)], prompt=True)
        marked = self._render([_said("system", SYSTEM), _said("user", PROMPT)], prompt=True)
        found = self._render([_said("system", self._system), _said("user", PROMPT)], prompt=True)
        before, there, after = marked.partition(SYSTEM)
        if not there or not _within(found, before, after, self._system):
            raise ValueError(
                f"{self._name} {'changes' if there else 'leaves out'} the system prompt {self._system[:40]!r}. Set system_prompt to '', "
                f"or write it into prompt_template. {ANOTHER} takes it is another way."
            )
        return found

    def _prompt(self, prompt: str) -> str:
        text = self._render([*self._opening, _said("user", prompt)], prompt=True)
        self._check_prompt(text, prompt)
        return text

    def _check_prompt(self, text: str, prompt: str) -> None:
        before, there, after = self._frame.partition(PROMPT)
        if not there or not _within(text, before, after, prompt):
            raise ValueError(f"{self._name} changes the prompt that begins with {prompt[:40]!r}. {ANOTHER} writes it as it is.")

    @cached_property
    def _around(self) -> tuple[str, str]:
        before, there, after = self._after_prompt(self._frame, PROMPT, RESPONSE).partition(RESPONSE)
        if not there:
            raise ValueError(f"{self._name} leaves out the response. {ANOTHER} writes it.")
        return before, after

    @property
    def _before(self) -> tuple[str, str]:
        """What the template writes between prompt and response: what belongs to the prompt, and the space that begins a response."""
        before = self._around[0]
        inserted = before.rstrip(" ") if before.strip() else ""
        return inserted, before[len(inserted) :]

    @property
    def _end(self) -> str:
        return self._around[1]

    def _after_prompt(self, start: str, prompt: str, response: str) -> str:
        return self._cut(self._render([*self._opening, _said("user", prompt), _said("assistant", response)]), start)

    def _cut(self, full: str, start: str) -> str:
        if not full.startswith(start):
            raise ValueError(
                f"{self._name} changes the prompt once there is a response, so the response cannot be told apart. {ANOTHER} only appends."
            )
        return full[len(start) :]

    @property
    def _opening(self) -> list[dict[str, str]]:
        return [_said("system", self._system)] if self._system else []

    def _render_all(self, conversations: Sequence[list[dict[str, str]]], prompt: bool = False) -> list[str]:
        """`_render` of many conversations; where that fails, of one after the other, which says of what."""
        try:
            with limited(memory=False):
                texts = [str(text) for text in self._applied(conversations, prompt)]
        except Exception:
            return [self._render(turns, prompt) for turns in conversations]
        for text, turns in zip(texts, conversations, strict=True):
            self._check_length(text, turns)
        return texts

    def _applied(self, conversations: Any, prompt: bool) -> Any:
        return self.tokenizer.apply_chat_template(
            conversations, tokenize=False, add_generation_prompt=prompt, chat_template=self._template, date_string=self.settings.date
        )

    def _render(self, turns: list[dict[str, str]], prompt: bool = False) -> str:
        try:
            # A template that was never tried may grow without bound.
            with limited(memory=not self._tried):
                text = str(self._applied(turns, prompt))
            self._tried = True
        except (TemplateLimit, MemoryError, RecursionError) as error:
            why = str(error) or "it takes more memory than a conversation can need"
            raise ValueError(f"{self._name} does not end: {why}. {ANOTHER} ends.") from None
        except Exception as error:
            # A template is a program of somebody else's, which can fail in any way.
            why = (str(error).strip().splitlines() or [""])[0][:160]
            hint = " Set system_prompt to '' if it takes none." if self._system else ""
            roles = ", ".join(turn["role"] for turn in turns)
            raise ValueError(f"{self._name} cannot render the roles {roles} ({type(error).__name__}: {why}).{hint}") from None
        self._check_length(text, turns)
        return text

    def _check_length(self, text: str, turns: list[dict[str, str]]) -> None:
        if len(text) > LONGEST + sum(len(turn["content"]) for turn in turns):
            raise ValueError(f"{self._name} makes {len(text)} characters of a short conversation. {ANOTHER} ends.")

    @cached_property
    def _template(self) -> str:
        """The tokenizer's template, with the date of the settings in place of today's."""
        template = str(self.tokenizer.get_chat_template())
        if len(template) > LONGEST_TEMPLATE:
            raise ValueError(f"it has {len(template):,} characters, where at most {LONGEST_TEMPLATE:,} are read")
        return with_fixed_date(template, datetime.strptime(self.settings.date, DATE_FORMAT))

    def _marked(self, text: str) -> str:
        return str(mark_control_tokens(text, self._special)) if self._special.search(text) else text

    @cached_property
    def _special(self) -> re.Pattern[str]:
        """Finds the special tokens, and those that end the model's generation, in what is said."""
        added = self.tokenizer.added_tokens_decoder
        found = {token.content for number, token in added.items() if token.special or number in self.settings.ends}
        longest_first = sorted({*found, *self.tokenizer.all_special_tokens}, key=len, reverse=True)
        return re.compile("|".join(re.escape(token) for token in longest_first if token.strip()) or "(?!)")


def _said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _within(text: str, before: str, after: str, content: str) -> bool:
    """Whether a text is the content between two others, apart from white space around it, which many templates drop."""
    fits = len(text) >= len(before) + len(after) and text.startswith(before) and text.endswith(after)
    return fits and text[len(before) : len(text) - len(after)].strip() == content.strip()
