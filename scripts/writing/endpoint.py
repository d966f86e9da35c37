"""Where answers come from: an OpenAI-compatible endpoint's address, key, patience and prices.

Endpoint(model="a-model", url="http://localhost:8000/v1", price_in=0.15, price_out=0.6, budget=5)
"""

import os
from dataclasses import dataclass


class EndpointError(RuntimeError):
    """Raised where the endpoint cannot go on; the replies that were recorded stay."""


@dataclass(frozen=True)
class Endpoint:
    """Where answers come from, and what they cost.

    Args:
        model: the model's name there.
        url: base address, in front of /chat/completions; null for the environment variable OPENAI_BASE_URL, or else OpenAI's.
        key_variable: environment variable that holds the key; it may be unset for a server of your own. The key is never written.
        temperature: of sampling; null leaves it to the endpoint.
        max_tokens: longest answer in tokens; null leaves it to the endpoint.
        concurrency: questions under way at a time.
        timeout: seconds without a sign of life after which a question is asked again.
        retries: how often one question is tried again after a time-out, a lost connection or a busy server, before everything stops.
        backoff: seconds before the first retry; doubled each time up to a minute, shortened by chance, at least what Retry-After asks.
        price_in: dollars per million tokens read; null shows tokens only.
        price_out: dollars per million tokens written; null shows tokens only.
        budget: dollars after which no further question starts; null for no limit. Needs the prices, and replies that state their tokens.
    """

    model: str
    url: str | None = None
    key_variable: str = "OPENAI_API_KEY"
    temperature: float | None = 1.0
    max_tokens: int | None = None
    concurrency: int = 4
    timeout: float = 60.0
    retries: int = 6
    backoff: float = 1.0
    price_in: float | None = None
    price_out: float | None = None
    budget: float | None = None

    def __post_init__(self) -> None:
        for name, least in {"concurrency": 1, "retries": 0, "backoff": 0}.items():
            if getattr(self, name) < least:
                raise ValueError(f"endpoint.{name} must be at least {least}, got {getattr(self, name)}.")
        if not self.address.startswith(("http://", "https://")):
            raise ValueError(f"endpoint.url must start with http:// or https://, such as http://localhost:8000/v1; got {self.url!r}.")
        if not self.timeout > 0:
            raise ValueError(f"endpoint.timeout must be greater than 0 seconds, got {self.timeout}.")
        if self.budget is not None and (self.price_in is None or self.price_out is None):
            raise ValueError("endpoint.budget needs endpoint.price_in and endpoint.price_out, in dollars per million tokens.")

    @property
    def address(self) -> str:
        """The full address of chat completions."""
        base = self.url or os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
        return base.rstrip("/") + "/chat/completions"

    def key(self) -> str:
        """The key, without the white space that a file's end or a paste leaves around it; empty where there is none."""
        key = os.environ.get(self.key_variable, "").strip()
        if not (key.isascii() and key.isprintable()):
            raise ValueError(f"The key in {self.key_variable} holds characters that no key has, such as a line's end. Set it again.")
        return key
