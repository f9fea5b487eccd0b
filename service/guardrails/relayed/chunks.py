"""Streamed answers of Chat Completions, chunk by chunk: text is filtered as it arrives, calls once they are whole."""

from __future__ import annotations

from typing import Any

from service.guardrails.filter import Refused
from service.guardrails.relayed.texts import NO_TEXT, Side, Text, arguments, screened, whole

Chunk = dict[str, Any]
TEXTS = ("content", "refusal", "reasoning_content", "reasoning")  # members of a delta
WHOLE = ("role", "name", "annotations")  # members of a delta that do not come in pieces
LEGACY = "function_call"  # member of a delta: the only call, in the dialect's first form
CALL_TEXTS = {"function": "arguments", "custom": "input", LEGACY: "arguments"}  # member that comes in pieces


class ChunkScreen:
    """Filter of the chunks of one answer, fed in order; `close` returns what was held back.

    What is held back comes in a chunk of its own before the one that ends the answer. `refused`, once a text is: no
    more may be fed.
    """

    def __init__(self, side: Side) -> None:
        self._side = side
        self.refused: Refused | None = None
        self._like: Chunk = {}  # last chunk, after which others are made
        self._texts: dict[tuple[int, str], Text] = {}  # by choice and member
        self._calls: dict[tuple[int, int], tuple[str, list[str]]] = {}  # by choice and call: member, pieces

    def feed(self, chunk: Chunk) -> list[Chunk]:
        """Return the chunks that this one lets go."""
        choices = [self._choice(choice) for choice in chunk.get("choices") or ()]
        self._like = {**chunk, "choices": [], **({"usage": None} if "usage" in chunk else {})}
        ends = not choices or any(choice.get("finish_reason") is not None for choice in choices)
        rest = screened({name: one for name, one in chunk.items() if name != "choices"}, self._side)
        told = {name: choices if name == "choices" else rest[name] for name in chunk}
        if not ends:
            return [told]
        if self.refused is not None:
            return [{**told, "choices": [{**choice, "finish_reason": None} for choice in choices]}]
        if not any(choice["delta"] for choice in choices):
            rest = self.close()
            return rest if self.refused is not None else [*rest, told]
        before = {**self._like, "choices": [{**choice, "finish_reason": None} for choice in choices]}
        rest = [before, *self.close()]
        if self.refused is not None:
            return rest
        return [*rest, {**told, "choices": [{**choice, "delta": {}} for choice in choices]}]

    def close(self) -> list[Chunk]:
        """End all texts and calls under way."""
        deltas: dict[int, dict[str, Any]] = {}
        for (choice, name), text in self._texts.items():
            if rest := self._fed(text, None):
                deltas.setdefault(choice, {})[name] = rest
        calls = {} if self.refused is not None else self._calls  # a call is told whole, or not at all
        for (choice, number), (kind, pieces) in calls.items():
            if told := self._told(kind, "".join(pieces)):
                delta, made_call = deltas.setdefault(choice, {}), {CALL_TEXTS[kind]: told}
                if kind == LEGACY:
                    delta[LEGACY] = made_call
                else:
                    delta.setdefault("tool_calls", []).append({"index": number, kind: made_call})
        self._texts, self._calls = {}, {}
        made = [{"index": index, "delta": delta, "finish_reason": None} for index, delta in deltas.items()]
        return [{**self._like, "choices": made}] if made else []

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any]:
        """Return a choice with what is known of its texts."""
        index, delta = choice.get("index") or 0, choice.get("delta") or {}
        told: dict[str, Any] = {}
        for name, one in delta.items():
            if name in TEXTS and isinstance(one, str):
                told[name] = self._fed(self._text(index, name), one)
            elif name == LEGACY and isinstance(one, dict):
                told[name] = self._called(index, -1, LEGACY, one)
            elif name == "tool_calls" and isinstance(one, list):
                told[name] = [self._call(index, place, call) for place, call in enumerate(one)]
            else:
                told[name] = screened({name: one if name in WHOLE else _wordless(one)}, self._side)[name]
        rest = {name: one for name, one in choice.items() if name != "delta"}
        return {**screened(rest, self._side), "delta": told}

    def _call(self, choice: int, place: int, call: dict[str, Any]) -> dict[str, Any]:
        told, number = dict(call), call.get("index", place)
        for kind in CALL_TEXTS:
            if isinstance(called := call.get(kind), dict):
                told[kind] = self._called(choice, number, kind, called)
        return told

    def _called(self, choice: int, number: int, kind: str, called: dict[str, Any]) -> dict[str, Any]:
        """Keep the pieces of a call's arguments; return the rest of it."""
        member = CALL_TEXTS[kind]
        if not isinstance(called.get(member), str):
            return called
        self._calls.setdefault((choice, number), (kind, []))[1].append(called[member])
        return {**called, member: ""}

    def _fed(self, text: Text, piece: str | None) -> str:
        """Feed a piece of a text; None: its end."""
        try:
            told = text.close() if piece is None else text.feed(piece)
        except Refused as refused:
            self.refused, told = self.refused or refused, refused.before
        if piece is None:
            text.count()
        return told

    def _text(self, choice: int, name: str) -> Text:
        if (text := self._texts.get((choice, name))) is None:
            text = self._texts[choice, name] = self._side.text()
        return text

    def _told(self, kind: str, given: str) -> str:
        if kind == "custom":
            return whole(self._side.argument(), given)
        return arguments(given, self._side)


def _wordless(value: Any) -> Any:
    """Return a member that is not known here without its texts: pieces of them, each by itself, would hide a match."""
    if isinstance(value, dict):
        return {name: one if name in NO_TEXT else _wordless(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_wordless(one) for one in value]
    return "" if isinstance(value, str) else value
