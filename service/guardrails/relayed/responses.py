"""Streamed answers of the Responses API, event by event: text is filtered as it arrives, calls once they are whole."""

from __future__ import annotations

from typing import Any

from service.guardrails.filter import Refused
from service.guardrails.relayed.texts import Side, Text, arguments, screened, whole

Event = dict[str, Any]
Key = tuple[Any, ...]
# Kinds of events whose deltas are arguments of a call, with the member of their end; those of others are text.
CALLS = {
    "response.function_call_arguments": "arguments",
    "response.mcp_call_arguments": "arguments",
    "response.custom_tool_call_input": "input",
}
BYTES = ("response.audio",)  # kinds whose deltas are no text
PLACE = ("output_index", "content_index", "summary_index")


class ResponseScreen:
    """Filter of the events of one answer, fed in order; `close` returns what was held back.

    Events are numbered anew, as their number changes. `refused`, once a text is: no more may be fed.
    """

    def __init__(self, side: Side) -> None:
        self._side, self._again = side, side.again()
        self.refused: Refused | None = None
        self._texts: dict[Key, tuple[Text, Event]] = {}  # with the last delta
        self._calls: dict[Key, tuple[list[str], Event]] = {}
        self._number: int | None = None  # of the next event

    def feed(self, event: Event) -> list[Event]:
        """Return the events that this one lets go."""
        kind, _, what = str(event.get("type")).rpartition(".")
        if self._number is None and type(event.get("sequence_number")) is int:
            self._number = event["sequence_number"]
        if what == "delta" and kind in BYTES:
            return self._numbered([event])
        if what == "delta" and kind in CALLS:
            self._calls.setdefault(_key(kind, event), ([], event))[0].append(str(event.get("delta") or ""))
            return []
        if what == "delta" and isinstance(event.get("delta"), str):
            return self._numbered(self._delta(kind, event))
        if what == "done" and kind in CALLS:
            return self._numbered(self._called(kind, event))
        if what == "done":
            return self._numbered(self._done(kind, event))
        side = self._side if kind == "response.output_text.annotation" else self._again
        return self._numbered([screened(event, side)])

    def close(self) -> list[Event]:
        """End all texts under way."""
        told: list[Event] = []
        for key in list(self._texts):
            told += self._rest(key)
        return self._numbered(told)

    def _delta(self, kind: str, event: Event) -> list[Event]:
        key = _key(kind, event)
        text, _ = self._texts.get(key) or (self._side.text(), event)
        self._texts[key] = (text, event)
        return self._piece(text, str(event.get("delta") or ""), event)

    def _piece(self, text: Text, piece: str | None, like: Event) -> list[Event]:
        """Feed a piece of a text; None: its end."""
        try:
            told = text.close() if piece is None else text.feed(piece)
        except Refused as refused:
            self.refused, told = refused, refused.before
        if piece is None:
            text.count()
        logprobs: Event = {"logprobs": []} if "logprobs" in like else {}
        return [{**like, "delta": told, **logprobs}] if told else []

    def _rest(self, key: Key) -> list[Event]:
        if key not in self._texts:
            return []
        text, like = self._texts.pop(key)
        return self._piece(text, None, like)

    def _done(self, kind: str, event: Event) -> list[Event]:
        told = self._rest(_key(kind, event))
        return told if self.refused is not None else [*told, screened(event, self._again)]

    def _called(self, kind: str, event: Event) -> list[Event]:
        """Tell a call's arguments as one piece, and its end."""
        member = CALLS[kind]
        pieces, like = self._calls.pop(_key(kind, event), ([], event))
        given = event.get(member)
        given = given if isinstance(given, str) else "".join(pieces)
        reads = member == "arguments"
        told = arguments(given, self._side) if reads else whole(self._side.argument(), given)
        rest = {name: one for name, one in event.items() if name != member}
        end = {**screened(rest, self._again), member: told}
        return [{**like, "delta": told}, end] if pieces and told else [end]

    def _numbered(self, events: list[Event]) -> list[Event]:
        """Give events their numbers, each the next."""
        found = []
        for event in events:
            if self._number is not None and "sequence_number" in event:
                if event["sequence_number"] != self._number:
                    event = {**event, "sequence_number": self._number}
                self._number += 1
            found.append(event)
        return found


def _key(kind: str, event: Event) -> Key:
    return (kind, *(event.get(name) for name in PLACE))
