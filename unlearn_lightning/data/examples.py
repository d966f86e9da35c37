"""Examples and their tokens: chat template around the prompt, loss and likelihood on the response only.

encoder = Encoder(tokenizer, system_prompt="", max_length=512)
encoded = encoder.encode([Example("tofu-0", "Who is ...?", "She is ...")])    # [Encoded(id, prompt_ids, response_ids)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from unlearn_lightning.inference.chat_format import ChatFormat
from unlearn_lightning.sources.quoting import quoted

# Examples that template and tokenizer are given at once.
AT_ONCE = 1000


@dataclass(frozen=True)
class Example:
    """One prompt and the response to it, as text; `alternative` is a second response, for objectives that compare the two."""

    id: str
    prompt: str
    response: str
    alternative: str | None = None


@dataclass(frozen=True)
class Encoded:
    """One example as tokens. The model reads prompt then response; only response tokens count for loss and likelihood.

    `truncated` says that the response was longer than max_length left room for. `alternative` is the same prompt with its second response.
    """

    id: str
    prompt_ids: list[int]
    response_ids: list[int]
    truncated: bool = False
    alternative: Encoded | None = None

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


def lengths_of(encoded: Sequence[Encoded]) -> tuple[int, ...]:
    """The tokens of each example; those that are kept in a file know theirs (`token_store.StoredExamples`)."""
    known: tuple[int, ...] | None = getattr(encoded, "lengths", None)
    return tuple(map(len, encoded)) if known is None else known


def longest(encoded: Sequence[Encoded]) -> tuple[int, int]:
    """The most tokens that an example has, and the most that a response has."""
    known: tuple[int, int] | None = getattr(encoded, "longest", None)
    return known or (max(map(len, encoded)), max(len(one.response_ids) for one in encoded))


def cut_in(encoded: Sequence[Encoded]) -> int:
    """How many of the examples have a response that was cut; those that are kept in a file know it (`token_store.StoredExamples`)."""
    known: int | None = getattr(encoded, "cut", None)
    return sum(one.truncated for one in encoded) if known is None else known


class Encoder:
    """Turns examples into tokens with the tokenizer's chat template.

    Prompt and response are tokenised apart, just as generation sees them. The end-of-turn token belongs to the response, and what the
    template inserts before a response (Qwen3's empty think block) to the prompt.

    Args:
        tokenizer: with a chat template.
        system_prompt: opens every conversation; empty for none.
        max_length: longest sequence in tokens; longer responses are cut, and such examples say so.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system_prompt: str = "", max_length: int = 512) -> None:
        self.chat = ChatFormat(tokenizer, system_prompt)
        self.max_length = max_length

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens up to where the assistant starts to speak."""
        return self.chat.tokens(self.chat.prompt(prompt))

    def response_start_ids(self, text: str) -> list[int]:
        """The tokens of a response's beginning, such as a refusal phrase: without the end of turn, as training had them."""
        return self.chat.tokens(self.chat.response_start(text))

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Encodes examples in order.

        Raises:
            ValueError: the prompt leaves no room for even one response token, or the chat template fails, rewrites what it is given, or
                closes a response with nothing that ends generation.
        """
        found: list[Encoded] = []
        for start in range(0, len(examples), AT_ONCE):
            found += self._encode_together(examples[start : start + AT_ONCE])
        return found

    def _encode_together(self, examples: Sequence[Example]) -> list[Encoded]:
        """Template and tokenizer are called once for all; where that fails, for one after the other, which says for which."""
        seconds = [replace(e, response=e.alternative) for e in examples if e.alternative is not None]
        try:
            encoded = self._together([*examples, *seconds])
        except ValueError:
            return [self._both(example) for example in examples]
        second = iter(encoded[len(examples) :])
        pairs = zip(examples, encoded[: len(examples)], strict=True)
        return [one if example.alternative is None else replace(one, alternative=next(second)) for example, one in pairs]

    def _together(self, examples: Sequence[Example]) -> list[Encoded]:
        texts = self.chat.turns([(example.prompt, example.response) for example in examples])
        tokens = self.chat.tokens_of([text for turn in texts for text in turn])
        return [self._cut(example, *ids) for example, ids in zip(examples, zip(tokens[::2], tokens[1::2], strict=True), strict=True)]

    def _both(self, example: Example) -> Encoded:
        """One example, as `encode` has it of many."""
        encoded = self._encode(example)
        if example.alternative is None:
            return encoded
        return replace(encoded, alternative=self._encode(replace(example, response=example.alternative)))

    def _encode(self, example: Example) -> Encoded:
        try:
            prompt, response = self.chat.turn(example.prompt, example.response)
            return self._cut(example, self.chat.tokens(prompt), self.chat.tokens(response))
        except ValueError as error:
            raise ValueError(f"Example {example.id}: {error}") from None

    def _cut(self, example: Example, prompt_ids: list[int], response_ids: list[int]) -> Encoded:
        self._check(example.prompt, prompt_ids, response_ids)
        room = self.max_length - len(prompt_ids)
        return Encoded(example.id, prompt_ids, response_ids[:room], truncated=len(response_ids) > room)

    def _check(self, prompt: str, prompt_ids: list[int], response_ids: list[int]) -> None:
        if len(prompt_ids) >= self.max_length or not response_ids:
            if not response_ids:
                raise ValueError("the response is empty, so there is nothing to learn.")
            raise ValueError(
                f"the prompt alone has {len(prompt_ids)} tokens, so max_length {self.max_length} leaves nothing to learn. Raise "
                f"max_length, or set skip_long_prompts to leave such examples out. This prompt is {quoted(prompt)}."
            )
        self.chat.check_end(response_ids)
