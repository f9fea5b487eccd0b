"""Guardrails on the bytes of a relayed answer: its texts are filtered where they stand, in the dialect of its door."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from service.errors import ModelError
from service.guardrails.filter import Refused
from service.guardrails.relayed.chunks import ChunkScreen
from service.guardrails.relayed.events import EventScreen
from service.guardrails.relayed.responses import ResponseScreen
from service.guardrails.relayed.texts import Side, screened
from service.llm.model_json import parse
from service.llm.openai_answer import DONE, UNREADABLE
from service.llm.relay import ChatRequest, RelayedRequest, ResponsesRequest
from service.llm.sse_data import SseData
from service.text import exact_json

_NAME = re.compile(r"[a-z_.]{1,64}")


class Events(Protocol):
    """Filter of a stream's events in one dialect."""

    refused: Refused | None

    def feed(self, event: dict[str, Any], /) -> list[dict[str, Any]]: ...

    def close(self) -> list[dict[str, Any]]: ...


class RelayScreen:
    """Filter of one answer: `feed` with its bytes as they arrive, `close` at its end; both return what may go on.

    An answer that is not streamed goes on once it is whole. Text without a match keeps its bytes.
    """

    def __init__(self, request: RelayedRequest, side: Side) -> None:
        self._side = side
        self._streams = request.stream
        self._events = _events(request, side)
        self._named = not isinstance(self._events, ChunkScreen)  # events have names
        self._data = SseData()
        self._refused: Refused | None = None
        self._body: list[bytes] = []

    def feed(self, piece: bytes) -> bytes:
        """Raise what the filters raise, and `ModelError` for an answer that cannot be read."""
        if not self._streams:
            self._body.append(piece)
            return b""
        told = []
        try:
            for data in self._data.feed(piece):
                if self.refused is None:
                    told.append(self._told(data.strip()))
        except Refused as refused:
            self._refused = refused
        return b"".join(told)

    @property
    def refused(self) -> Refused | None:
        """Return what a text of the stream was refused for: what was fed until then is told, and nothing more."""
        return self._refused or self._events.refused

    def close(self) -> bytes:
        if self._streams:
            return self._written(self._events.close())
        body = b"".join(self._body)
        value = _loads(body)
        told = _screened(lambda: screened(value, self._side))
        return body if told is value else _dumps(told)

    def _told(self, data: bytes) -> bytes:
        if data == DONE:
            return self._written(self._events.close()) + b"data: [DONE]\n\n"
        event = _screened(lambda: parse(data))
        told = _screened(lambda: self._events.feed(event))
        if len(told) == 1 and told[0] is event:
            return self._line(event, data)
        return self._written(told)

    def _written(self, events: Iterable[dict[str, Any]]) -> bytes:
        return b"".join(self._line(event, _dumps(event)) for event in events)

    def _line(self, event: dict[str, Any], data: bytes) -> bytes:
        name = str(event.get("type")) if self._named else ""
        if _NAME.fullmatch(name) is None:  # such as one with a line break
            return b"data: %b\n\n" % data
        return b"event: %b\ndata: %b\n\n" % (name.encode(), data)


def _events(request: RelayedRequest, side: Side) -> Events:
    if isinstance(request, ResponsesRequest):
        return ResponseScreen(side)
    return ChunkScreen(side) if isinstance(request, ChatRequest) else EventScreen(side)


def _screened(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except UNREADABLE as error:  # such as one that is nested too deep
        raise ModelError("The model sent an answer that cannot be read") from error


def _loads(data: bytes) -> Any:
    """Parse an answer, whose numbers keep their digits where they can."""
    try:
        return exact_json.loads(data)
    except (ValueError, RecursionError):  # such as half a surrogate pair
        return parse(data)


def _dumps(value: Any) -> bytes:
    """Serialise an event or answer, which may hold half a surrogate pair: its other half may come in the next."""
    try:
        return exact_json.dumps(value)
    except ValueError:
        return json.dumps(value, separators=(",", ":")).encode()
