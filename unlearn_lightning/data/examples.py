"""Examples and their tokens: chat template around the prompt, loss and likelihood on the response only.

encoder = Encoder(tokenizer, system_prompt="", max_length=512)
encoded = encoder.encode([Example("tofu-0", "Who is ...?", "She is ...")])    # [Encoded(id, prompt_ids, response_ids)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Example:
    """One prompt and the response to it, as text."""

    id: str
    prompt: str
    response: str


@dataclass(frozen=True)
class Encoded:
    """One example as tokens. The model reads prompt then response; only response tokens count for loss and likelihood.

    `truncated` says that the response was longer than max_length left room for.
    """

    id: str
    prompt_ids: list[int]
    response_ids: list[int]
    truncated: bool = False

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


class Encoder:
    """Turns examples into tokens with the tokenizer's chat template.

    Prompt and response are tokenised apart, just as generation sees them, so a prompt's tokens never depend on the response. The
    end-of-turn token belongs to the response.

    Args:
        tokenizer: with a chat template.
        system_prompt: opens every conversation; empty for none.
        max_length: longest sequence in tokens; longer responses are cut, and such examples say so.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, system_prompt: str = "", max_length: int = 512) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self._system = [{"role": "system", "content": system_prompt}] if system_prompt else []

    def prompt_ids(self, prompt: str) -> list[int]:
        """The tokens up to where the assistant starts to speak."""
        return self._tokens(self._prompt_text(prompt))

    def response_start_ids(self, text: str) -> list[int]:
        """The tokens of a response's beginning, such as a refusal phrase: without the end of turn, as training had them."""
        return self._tokens(self._before_response + text)

    def encode(self, examples: Sequence[Example]) -> list[Encoded]:
        """Encodes examples in order.

        Raises:
            ValueError: the prompt leaves no room for even one response token, or the chat template rewrites the prompt.
        """
        return [self._encode(example) for example in examples]

    @cached_property
    def _before_response(self) -> str:
        """What the chat template puts between prompt and response; Llama-2's a space, most nothing."""
        mark = "0response0"
        turns = [*self._messages("prompt"), {"role": "assistant", "content": mark}]
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False)).removeprefix(self._prompt_text("prompt")).partition(mark)[0]

    def _encode(self, example: Example) -> Encoded:
        prompt_text = self._prompt_text(example.prompt)
        messages = [*self._messages(example.prompt), {"role": "assistant", "content": example.response}]
        full_text = str(self.tokenizer.apply_chat_template(messages, tokenize=False))
        if not full_text.startswith(prompt_text):
            raise ValueError(
                f"The chat template changes the prompt once there is a response (example {example.id}), so the response cannot be "
                "told apart. Set backbone.chat_template_from to a tokenizer whose template only appends."
            )
        prompt_ids = self._tokens(prompt_text)
        # Templates such as Qwen's put a line break after the end of turn; the model never has to say it.
        response_ids = self._tokens(full_text[len(prompt_text) :].rstrip("\n"))
        room = self.max_length - len(prompt_ids)
        if room < 1 or not response_ids:
            why = "the response is empty" if not response_ids else f"the prompt alone has {len(prompt_ids)} tokens"
            raise ValueError(f"Example {example.id}: {why}, so max_length {self.max_length} leaves nothing to learn. Raise max_length.")
        return Encoded(example.id, prompt_ids, response_ids[:room], truncated=len(response_ids) > room)

    def _messages(self, prompt: str) -> list[dict[str, str]]:
        return [*self._system, {"role": "user", "content": prompt}]

    def _prompt_text(self, prompt: str) -> str:
        return str(self.tokenizer.apply_chat_template(self._messages(prompt), tokenize=False, add_generation_prompt=True))

    def _tokens(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]
