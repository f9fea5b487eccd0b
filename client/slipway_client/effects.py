"""Effects: what the client's logic asks its driver to do.

The logic is generators that yield effects. A driver (`client.py`, `async_client.py`) performs each and sends back what
it gives, or throws the error into the generator. So the synchronous and the asynchronous client have one logic and
differ only in how they wait.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from slipway_client.errors import APIError, Refusal, UnexpectedAnswer, error_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """Request to send. `timeout`: seconds until the answer begins."""

    method: str
    path: str
    headers: Mapping[str, str]
    query: Mapping[str, str]
    content: bytes | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with its body; an open stream has none. Names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""
    streaming: bool = False

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """Parse the body; None for an empty one. Raises `UnexpectedAnswer`."""
        if not self.content:
            return None
        try:
            return json.loads(self.content)
        except ValueError:
            raise UnexpectedAnswer(f"The answer ({self.status}) is not JSON.") from None

    def error(self) -> APIError:
        """Build the error of an answer that is not 2xx."""
        try:
            body = self.json()
        except UnexpectedAnswer:
            body = None
        text = self.content.decode(errors="replace")
        return error_of(Refusal(self.status, body, text, self.headers.get("retry-after")))


@dataclass(frozen=True, slots=True)
class Send:
    """Send a request; gives an `Answer`."""

    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    """Send a request and leave the answer's body unread if it is an event stream; gives an `Answer`.

    `silence`: seconds without any byte of the body, which begins at once, unlike the answer.
    """

    request: Request
    silence: float


@dataclass(frozen=True, slots=True)
class Read:
    """Read on from the open stream; gives bytes, or None at its end."""


@dataclass(frozen=True, slots=True)
class Close:
    """Close the open stream, if any."""


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Alone:
    """Run a flow that no other flow of this client runs at the same time; gives its result."""

    flow: Flow[Any]


@dataclass(frozen=True, slots=True)
class Out(Generic[T]):
    """Hand an item to the caller's iterator."""

    item: T


Effect: TypeAlias = Send | Open | Read | Close | Sleep | Alone
Flow: TypeAlias = Generator[Effect, Any, T]
Items: TypeAlias = Generator[Effect | Out[T], Any, None]
