"""One question sent to a chat-completions endpoint, and sent again while the trouble is one that passes. The key is never shown.

transport = Transport(endpoint, stop=threading.Event())
with transport.client:
    reply = transport.ask(question)
"""

import re
import threading
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

import httpx
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from writing.endpoint import Endpoint, EndpointError
from writing.replies import Question, Reply

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""HTTP statuses that pass: too many requests, and servers in trouble."""
PASSES = (httpx.TransportError, httpx.DecodingError, httpx.HTTPStatusError)


class Transport:
    """A connection to the endpoint, for any number of threads. Once `stop` is set, no question is sent again."""

    def __init__(self, endpoint: Endpoint, stop: threading.Event) -> None:
        self.endpoint, self.stop, self.key = endpoint, stop, endpoint.key()
        self.client = httpx.Client(headers={"Authorization": f"Bearer {self.key}"} if self.key else {}, timeout=endpoint.timeout)
        self.backoff = wait_random_exponential(multiplier=endpoint.backoff, min=endpoint.backoff / 2, max=60)
        tries = stop_after_attempt(endpoint.retries + 1)
        self.retrying = Retrying(retry=retry_if_exception_type(PASSES), stop=tries, wait=self._pause, sleep=self._sleep, reraise=True)

    def ask(self, question: Question) -> Reply:
        """Returns the endpoint's reply.

        Raises:
            EndpointError: the endpoint refuses the key or the model, or the last try failed as well.
            CancelledError: `stop` was set while the question waited for its next try.
        """
        try:
            return self.retrying(self._send, question)
        except PASSES as error:
            name, text = type(error).__name__, str(error)
            if isinstance(error, httpx.HTTPStatusError):
                name, text = f"HTTP {error.response.status_code}", error.response.text
            raise EndpointError(
                f"{self.endpoint.address} failed {self.endpoint.retries + 1} times in a row, last with {name} ({self._clean(text)}). What "
                "was answered is kept: the same command goes on from there."
            ) from None

    def _send(self, question: Question) -> Reply:
        settings = {name: getattr(self.endpoint, name) for name in ("model", "temperature", "max_tokens")}
        body = {"messages": question.messages} | {name: value for name, value in settings.items() if value is not None}
        response = self.client.post(self.endpoint.address, json=body)
        status, text = response.status_code, self._clean(response.text)
        if status in AGAIN:
            response.raise_for_status()
        if status in (401, 403, 404):
            raise EndpointError(
                f"{self.endpoint.address} answers HTTP {status}: {text} Check endpoint.url, endpoint.model ({self.endpoint.model}) and "
                f"the key in the environment variable {self.endpoint.key_variable}."
            )
        content, trouble = None, "not a chat completion" if response.is_success else f"HTTP {status}"
        with suppress(ValueError):
            content = response.json()
        answer = _at(content, "choices", 0, "message", "content")
        # Half a surrogate pair is in no file that can be read again.
        usable = response.is_success and isinstance(answer, str) and not re.search(r"[\ud800-\udfff]", answer)
        tokens = (_at(content, "usage", name) for name in ("prompt_tokens", "completion_tokens"))
        counts = (count if isinstance(count, int) and count >= 0 else None for count in tokens)
        kept, rejected = (answer, None) if usable else (None, f"no reply: {trouble} {text}")
        return Reply(question.id, self.endpoint.model, kept, rejected, *counts)

    def _pause(self, state: RetryCallState) -> float:
        """Seconds until the next try: Retry-After, but five minutes at most, where it asks for more than the usual pause."""
        pause, error = self.backoff(state), state.outcome and state.outcome.exception()
        with suppress(ValueError):  # The header holds a date, for which the usual pause is long enough.
            if isinstance(error, httpx.HTTPStatusError):
                return max(pause, min(float(error.response.headers.get("retry-after", 0)), 300.0))
        return pause

    def _sleep(self, seconds: float) -> None:
        # Tenacity's own sleep on an event would send the question once more when the event is set.
        if self.stop.wait(seconds):
            raise CancelledError

    def _clean(self, text: str) -> str:
        """The beginning of a reply for a message, without the key should the endpoint repeat it."""
        return (text.replace(self.key, "***") if self.key else text).strip().replace("\n", " ")[:200]


def _at(content: Any, *path: str | int) -> Any:
    """What lies at a path in parsed JSON; null where the path leads nowhere."""
    for step in path:
        try:
            content = content[step]
        except (LookupError, TypeError):
            return None
    return content
