"""Streamed answers of the Messages API, event by event: text is filtered as it arrives, calls once they are whole."""

from __future__ import annotations

from typing import Any

from service.guardrails.filter import Refused
from service.guardrails.relayed.texts import Side, Text, arguments, screened

Event = dict[str, Any]
# Types of deltas whose text is read, and the type of their block, which is also the name of the text's member.
PIECES = {"text_delta": "text", "thinking_delta": "thinking"}
DELTA_OF = {block: delta for delta, block in PIECES.items()}
CALL = "input_json_delta"
WHOLE = ("citations_delta", "signature_delta")  # types of deltas that are no piece of anything


class EventScreen:
    """Filter of the events of one answer, fed in order; `close` returns what was held back.

    `refused`, once a text is: no more may be fed.

    Blocks of one kind that stand side by side are one text. While its end is not known, as it may go on in the next
    block, the end of a block and the beginning of the next wait: what was held back belongs to the first of them.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self.refused: Refused | None = None
        self._kind = ""  # of the blocks that are one text now
        self._text: Text | None = None  # filter of that text
        self._index = 0  # of the block that gets the text
        self._waiting: list[Event] = []
        self._calls: dict[int, list[str]] = {}  # arguments so far, by block
        self._others: dict[tuple[int, str], Event] = {}  # pieces of unknown types, by block and type

    def feed(self, event: Event) -> list[Event]:
        """Return the events that this one lets go."""
        kind = event.get("type")
        if kind == "content_block_delta":
            return self._delta(event)
        if kind == "content_block_start":
            return self._start(event)
        if kind == "content_block_stop":
            return self._stop(event)
        if kind == "ping":
            return [event]
        return self._after_text(screened(event, self._side))

    def close(self) -> list[Event]:
        """End the text under way."""
        if self._text is None:
            return []
        told = self._add(None)
        self._text = None
        waiting, self._waiting = self._waiting, []
        return told if self.refused is not None else [*told, *waiting]

    def _after_text(self, event: Event) -> list[Event]:
        """End the text under way; unless it is refused, the event follows."""
        told = self.close()
        return told if self.refused is not None else [*told, event]

    def _start(self, event: Event) -> list[Event]:
        block, index = event["content_block"], event["index"]
        kind = block.get("type")
        if kind not in DELTA_OF:
            if isinstance(block.get("input"), dict):
                self._calls[index] = []
            return self._after_text(screened(event, self._side))
        begun = {**event, "content_block": screened({**block, kind: ""}, self._side)}
        told = self._begin(kind, index, begun)
        return [*told, *self._add(block.get(kind) or "")]

    def _begin(self, kind: str, index: int, begun: Event) -> list[Event]:
        """Begin a block of text, which may go on with the text before it."""
        if self._text is not None and kind == self._kind:
            self._waiting.append(begun)
            return []
        told = self._after_text(begun)
        text = self._side.text() if kind == "text" else self._side.thought()
        self._kind, self._text, self._index = kind, text, index
        return told

    def _delta(self, event: Event) -> list[Event]:
        delta, index = event["delta"], event["index"]
        kind = delta.get("type")
        if kind == CALL:
            self._calls.setdefault(index, []).append(delta["partial_json"])
            return []
        if kind in PIECES and PIECES[kind] == self._kind and self._text is not None:
            return self._add(delta[self._kind])
        if kind in WHOLE:
            return self._later(screened(event, self._side))
        before = self._others.get((index, str(kind)))
        self._others[index, str(kind)] = (
            event if before is None else {**event, "delta": _after(before, delta)}
        )
        return []

    def _stop(self, event: Event) -> list[Event]:
        others = [key for key in self._others if key[0] == event["index"]]
        told = [one for key in others for one in self._later(screened(self._others.pop(key), self._side))]
        return [*told, *self._end(event)]

    def _end(self, event: Event) -> list[Event]:
        """End a block: of a call, its arguments are told before."""
        pieces = self._calls.pop(event["index"], None)
        if pieces is None:
            return self._later(event)
        told = arguments("".join(pieces), self._side) if pieces else ""
        delta = {"type": CALL, "partial_json": told}
        made = {"type": "content_block_delta", "index": event["index"], "delta": delta}
        return [made, event] if told else [event]

    def _add(self, text: str | None) -> list[Event]:
        """Feed a piece of the text under way; None: its end."""
        assert self._text is not None
        try:
            told = self._text.close() if text is None else self._text.feed(text)
        except Refused as refused:
            self.refused, told = refused, refused.before
        if text is None:
            self._text.count()
        return self._tell(told)

    def _later(self, event: Event) -> list[Event]:
        """Let an event wait for the text before it, if any may be held back."""
        if self._text is None:
            return [event]
        self._waiting.append(event)
        return []

    def _tell(self, text: str) -> list[Event]:
        """Make a delta of text that is known; a block that waits for it ends, and the next begins."""
        if not text:
            return []
        delta = {"type": DELTA_OF[self._kind], self._kind: text}
        told = {"type": "content_block_delta", "index": self._index, "delta": delta}
        if self.refused is not None:
            return [told]
        waiting, self._waiting = self._waiting, []
        starts = [one["index"] for one in waiting if one["type"] == "content_block_start"]
        self._index = starts[-1] if starts else self._index
        return [told, *waiting]


def _after(before: Event, delta: Event) -> Event:
    """Return a delta with its texts behind those of the ones before it."""
    known = before["delta"]
    return {
        name: known[name] + one
        if name != "type" and isinstance(one, str) and isinstance(known.get(name), str)
        else one
        for name, one in delta.items()
    }
