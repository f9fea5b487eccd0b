"""Texts in bodies of the Messages API, Chat Completions and Responses: each is filtered where it stands.

Every string is a text, but for words of the protocol: a field that is not known here is filtered too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from service.text import exact_json
from service.text.exact_json import Number

# Members with words of the protocol, unless their value is an object: then it is a property of that name in a schema.
NO_TEXT = frozenset(
    {
        *("type", "role", "model", "object", "status", "media_type", "finish_reason", "stop_reason"),
        *("id", "call_id", "item_id", "tool_use_id", "tool_call_id", "file_id", "response_id"),
        *("signature", "encrypted_content", "encrypted_index", "service_tier", "system_fingerprint"),
        *("required", "$ref", "file_data"),
    }
)
OPAQUE = frozenset(
    {"usage", "cache_control", "image_url"}
)  # members without text, or with bytes or addresses
TEXT_SOURCES = ("text", "content")  # types of a `source` that hold text; others hold bytes or an address
SIGNED = ("thinking", "redacted_thinking")  # types of blocks that the model wrote and signed
CALLS = ("input", "arguments")  # members with arguments of a tool call, which have no words of the protocol
LEAKS = ("logprobs",)  # members that tell the text again, token by token
LEAST_DIGITS = 7  # of a number that may be somebody's
MOST_DEPTH = 150  # levels; a body has at most 64, an answer at most 200


class Text(Protocol):
    """Filter of one text, fed in pieces. Raises `Refused`."""

    @property
    def found(self) -> int:
        """Return the number of matches so far."""
        ...

    def feed(self, text: str) -> str: ...

    def close(self) -> str: ...

    def count(self) -> None:
        """Count the matches: what was fed is told as it was filtered."""


class Side(Protocol):
    """Filters of one direction: of what goes in, or of what comes out. `signed`: blocks that the model signs pass."""

    signed: bool

    def text(self) -> Text:
        """Make the filter of one text."""

    def again(self) -> Side:
        """Return the same filters for text that is told again, and counted once."""
        ...

    def thought(self) -> Text:
        """Make the filter of one text of thinking."""

    def argument(self) -> Text:
        """Make the filter of one text in the arguments of a tool call, which the client's tool is given."""


class TooDeep(ValueError):
    """Value that is nested deeper than any body or answer."""


def whole(text: Text, given: str) -> str:
    """Filter a complete text, and count its matches."""
    told = text.feed(given) + text.close()
    text.count()
    return told


def together(make: Callable[[], Text], texts: Sequence[str]) -> list[str]:
    """Filter texts that stand side by side: each by itself, or as one where more is found so.

    Then what is held back at the end of one is at the beginning of the next.
    """
    filters = [make() for _ in texts]
    alone = [one.feed(text) + one.close() for one, text in zip(filters, texts, strict=True)]
    chosen, told = filters, alone
    if len(alone) > 1:
        through = make()
        flowed = [through.feed(one) for one in texts]
        flowed[-1] += through.close()
        if through.found > sum(one.found for one in filters):
            chosen, told = [through], flowed
    for one in chosen:
        one.count()
    return told


def screened(value: Any, side: Side, *, depth: int = 0) -> Any:
    """Return a value of a body with its texts filtered; the same object where nothing was changed.

    Raises what the filters raise, and `TooDeep`.
    """
    if depth > MOST_DEPTH:
        raise TooDeep
    if isinstance(value, str):
        return whole(side.text(), value)
    if isinstance(value, list):
        return _kept(value, _blocks(value, side, depth))
    if isinstance(value, dict):
        if side.signed and value.get("type") in SIGNED:
            return value
        return _kept(value, {name: _member(name, one, value, side, depth) for name, one in value.items()})
    return value


def arguments(text: str, side: Side) -> str:
    """Filter the arguments of a tool call, which are JSON as text; as plain text where they cannot be read."""
    try:
        value = exact_json.loads(text.encode())
    except (ValueError, RecursionError):
        return whole(side.argument(), text)
    told = free(value, side)
    return text if told is value else exact_json.dumps(told).decode()


def free(value: Any, side: Side, *, depth: int = 0) -> Any:
    """Filter a value without words of the protocol: names of members and long numbers too."""
    if depth > MOST_DEPTH:
        raise TooDeep
    if isinstance(value, str):
        return whole(side.argument(), value)
    if isinstance(value, list):
        return _kept(value, [free(one, side, depth=depth + 1) for one in value])
    if isinstance(value, dict):
        found = {}
        for name, one in value.items():
            found[whole(side.argument(), name)] = free(one, side, depth=depth + 1)
        return value if list(found) == list(value) and _same(value, found) else found
    return _number(value, side)


def _number(value: Any, side: Side) -> Any:
    digits = value.text if isinstance(value, Number) else str(value) if type(value) in (int, float) else ""
    if len(digits) < LEAST_DIGITS:
        return value
    told = whole(side.argument(), digits)
    return value if told == digits else told


def _member(name: str, value: Any, within: Mapping[str, Any], side: Side, depth: int) -> Any:
    if name in OPAQUE or (name in NO_TEXT and not isinstance(value, dict)) or _is_bytes(name, value, within):
        return value
    if name in LEAKS and value:
        return None if isinstance(value, dict) else []
    if name == "metadata" or (name in CALLS and isinstance(value, dict)):
        return free(value, side, depth=depth + 1)
    if name == "arguments" and isinstance(value, str):
        return arguments(value, side)
    if name == "thinking" and isinstance(value, str):
        return whole(side.thought(), value)
    return screened(value, side, depth=depth + 1)


def _is_bytes(name: str, value: Any, within: Mapping[str, Any]) -> bool:
    if name == "source":
        return isinstance(value, dict) and value.get("type") not in TEXT_SOURCES
    return name == "data" and within.get("type") == "redacted_thinking"


def _blocks(values: list[Any], side: Side, depth: int) -> list[Any]:
    """Filter a list, whose neighbouring blocks of text are read as one text."""
    found = [one if _text_of(one) is not None else screened(one, side, depth=depth + 1) for one in values]
    for places in _neighbours(values):
        told = together(side.text, [_text_of(values[place]) or "" for place in places])
        for place, text in zip(places, told, strict=True):
            found[place] = _with_text(values[place], text, side, depth)
    return found


def _neighbours(values: list[Any]) -> Iterator[list[int]]:
    places: list[int] = []
    for place, one in enumerate(values):
        if _text_of(one) is not None:
            places.append(place)
        elif places:
            yield places
            places = []
    if places:
        yield places


def _text_of(block: Any) -> str | None:
    text = block.get("text") if isinstance(block, dict) else None
    return text if isinstance(text, str) else None


def _with_text(block: dict[str, Any], text: str, side: Side, depth: int) -> Any:
    rest = {
        name: text if name == "text" else _member(name, one, block, side, depth)
        for name, one in block.items()
    }
    return _kept(block, rest)


def _kept(before: Any, after: Any) -> Any:
    return before if _same(before, after) else after


def _same(before: Any, after: Any) -> bool:
    """Return whether a filtered list or object has the members that it had before."""
    if isinstance(before, dict):
        return all(_is(one, after[name]) for name, one in before.items())
    return all(map(_is, before, after))


def _is(before: Any, after: Any) -> bool:
    return before is after or (isinstance(before, str) and before == after)
