"""Events of a run, and the text that they tell."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slipway_client.errors import UnexpectedAnswer
from slipway_client.models import RunResult
from slipway_client.sse import Message

LAST = frozenset({"run.completed", "run.failed", "run.cancelled"})


@dataclass(frozen=True, slots=True)
class Event:
    """Event of a run. `type` is its name, such as `text.delta`; a later server may send other names."""

    type: str
    data: Mapping[str, Any]
    run_id: str
    seq: int

    @property
    def id(self) -> str:
        """Id to take the stream up again after this event."""
        return f"{self.run_id}:{self.seq}"

    @property
    def text(self) -> str:
        """Piece of the answer's text; "" for events other than `text.delta`."""
        return str(self.data.get("text", "")) if self.type == "text.delta" else ""

    @property
    def is_last(self) -> bool:
        return self.type in LAST

    @property
    def result(self) -> RunResult | None:
        """Result of the run, of its last event."""
        return RunResult.parse(self.data) if self.is_last else None


def data_of(message: Message) -> dict[str, Any]:
    """Parse the data of a message. Raises `UnexpectedAnswer`."""
    try:
        data = json.loads(message.data)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise UnexpectedAnswer(f"The data of the event {message.event!r} is no JSON object.")
    return data


def event_of(message: Message) -> Event:
    """Convert a message of the stream. Raises `UnexpectedAnswer` without an id `<run_id>:<number>`."""
    run_id, _, number = (message.id or "").rpartition(":")
    if not run_id or not (number.isascii() and number.isdecimal()):
        raise UnexpectedAnswer(f"The event {message.event!r} has no id of a run.")
    return Event(message.event, data_of(message), run_id, int(number))


class Transcript:
    """Text of a run so far: the deltas, without those that a `run.resumed` made void."""

    def __init__(self) -> None:
        self._pieces: list[tuple[int, str]] = []

    def add(self, event: Event) -> None:
        if event.text:
            self._pieces.append((event.seq, event.text))
        elif event.type == "run.resumed":
            kept = event.data.get("from_seq", 0)
            self._pieces = [piece for piece in self._pieces if piece[0] <= kept]

    def __str__(self) -> str:
        return "".join(text for _, text in self._pieces)
