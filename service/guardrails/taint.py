"""Untrusted text of a run: by whom it came, and which arguments of a call are taken from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from service.guardrails.hosts import hosts_in
from service.guardrails.plain_text import plain_character
from service.types import Block, Message

# Sources of untrusted text besides the tools of an agent.
CONTEXT, MESSAGES, SESSION, KNOWLEDGE = "context", "messages", "session", "knowledge"
SOURCES = (CONTEXT, MESSAGES, SESSION, KNOWLEDGE)
PIECE = 24  # characters of a value that, found in untrusted text, mark it
_STEP = 12  # between the pieces that are looked for …
_MOST_PIECES = 400  # … and how many of one value: then their distance grows
_SHORT = 8  # a value below it counts as found between other than letters and digits only
_DIGITS = 8  # characters of a number, such as a place in a page, that says nothing
_NUMBER = re.compile(r"[0-9][0-9.,'\u2019]*")
_SERVER_TOOL = "_tool_result"  # end of the type of a block in which the model's own tools answer


class Taint:
    """Untrusted text that a run holds, by source, and the words of its user. Grows only."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._words: list[str] = []
        self.read: set[str] = (
            set()
        )  # arguments of calls that left the service: allowed, or chosen before this text

    def __bool__(self) -> bool:
        return bool(self._texts)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of tools, and of `SOURCES`; sorted."""
        return tuple(sorted(self._texts))

    @property
    def words(self) -> tuple[str, ...]:
        """The user's own words."""
        return tuple(self._words)

    @property
    def hosts(self) -> frozenset[str]:
        """Hosts in the user's own words."""
        return frozenset().union(*map(hosts_in, self._words))

    def copy(self) -> Taint:
        """Return the same texts and words, to which others are added."""
        copied = Taint()
        copied._texts = {source: list(texts) for source, texts in self._texts.items()}
        copied._words = list(self._words)
        copied.read = set(self.read)
        return copied

    def trust(self, text: str) -> None:
        """Add words of the user."""
        self._words.append(text)

    def add(self, source: str, text: str) -> None:
        """Add untrusted text."""
        self._texts.setdefault(source, []).append(text)

    def add_turn(self, messages: Sequence[Message]) -> None:
        """Add messages of the caller: text of the user is trusted, all other content is not."""
        for message in messages:
            for block in _blocks(message):
                if block.get("type") == "text" and message["role"] == "user":
                    self.trust(str(block.get("text", "")))
                else:
                    self.add(MESSAGES, text_in(block))

    def add_reply(self, content: Sequence[Block]) -> None:
        """Add the results of tools that the model's provider ran, such as web pages."""
        for block in content:
            kind = str(block.get("type", ""))
            if kind.endswith(_SERVER_TOOL):
                self.add(kind.removesuffix(_SERVER_TOOL), text_in(block))

    def is_said(self, arguments: Mapping[str, Any]) -> bool:
        """Return whether the user's own words hold every text in the arguments, names inside them too.

        Compared as written, besides white space: case and invisible characters could carry data, as long numbers could.
        """
        words = "\n".join(self._words)
        texts = [text for value in arguments.values() for text in _written(value)]
        return all(_occurs(text, words) or _occurs(text, " ".join(words.split())) for text in texts)

    def marks(self, arguments: Mapping[str, Any], sources: Sequence[str]) -> dict[str, list[str]]:
        """Return the sources, and the JSON pointers of arguments that occur in untrusted text."""
        untrusted = _Haystack([text for texts in self._texts.values() for text in texts])
        trusted = _Haystack(self._words)
        pointers = [at for at, value in _leaves(arguments) if _is_taken(value, untrusted, trusted)]
        return {"sources": list(sources), "pointers": pointers}


def text_in(value: Any) -> str:
    """Join all text inside JSON."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return "\n".join(filter(None, map(text_in, value)))
    return value if isinstance(value, str) else ""


def plain(text: str) -> str:
    """Return a text in one case and width, without invisible characters, its white space as single spaces."""
    if text.isascii():
        return " ".join(text.lower().split())
    return " ".join("".join(map(plain_character, word)) for word in text.split())


class _Haystack:
    """Texts to look for values in."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.text = "\n".join(map(plain, texts))
        self.numbers = {number for found in _NUMBER.findall(self.text) for number in _read(found)}

    def holds(self, value: str) -> bool:
        return _occurs(value, self.text)


def _occurs(value: str, text: str) -> bool:
    if len(value) >= _SHORT:
        return value in text
    return not value or re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text) is not None


def _written(value: Any) -> Iterator[str]:
    """Yield each text in a value, names inside it, and numbers of more than `_DIGITS` characters."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield str(name)
            yield from _written(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _written(item)
    elif isinstance(value, str) or len(str(value)) > _DIGITS:
        yield str(value)


def _is_taken(value: Any, untrusted: _Haystack, trusted: _Haystack) -> bool:
    """Return whether a value, or a long piece of it, occurs in untrusted text and not in the user's words."""
    if isinstance(value, int | float):
        number = Decimal(str(value))
        return number in untrusted.numbers and number not in trusted.numbers
    text = plain(value)
    if not text or trusted.holds(text):
        return False
    if untrusted.holds(text):
        return True
    last = len(text) - PIECE
    step = max(_STEP, last // _MOST_PIECES)
    pieces = (text[at : at + PIECE] for at in range(0, last + 1, step))
    return any(piece in untrusted.text and piece not in trusted.text for piece in pieces)


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str | int | float]]:
    """Yield the JSON pointer and value of each text and number."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _leaves(item, f"{at}/{str(name).replace('~', '~0').replace('/', '~1')}")
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            yield from _leaves(item, f"{at}/{number}")
    elif isinstance(value, str | int | float) and not isinstance(value, bool):
        yield at, value


def _read(figures: str) -> Iterator[Decimal]:
    """Read a number as written with a decimal point, and with a decimal comma."""
    figures = figures.rstrip(".,'\u2019")
    for groups, point in ((",'\u2019", "."), (".'\u2019", ",")):
        plain_figures = "".join(one for one in figures if one not in groups).replace(point, ".")
        try:
            yield Decimal(plain_figures)
        except InvalidOperation:
            continue


def _blocks(message: Message) -> list[Block]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
