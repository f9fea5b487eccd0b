"""Patterns of rules: a part of the syntax of regular expressions whose matches are short and found in linear time.

A pattern is a sequence of characters and classes, each once, `?`, `{n}` or `{m,n}` times. So the longest match is
known, no input makes it slow, and a text that has arrived in part tells whether a match may still be going on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

LONGEST = 120  # characters of a match
_ENDING = 32  # characters that `*` of a word stands for
_SIGN = 4  # letters of a phrase that make a look worth it
_MOST_STATES = 10_000  # remembered steps of one pattern
_ITEM = re.compile(
    r"(?P<one>\\[^A-Za-z0-9]|\\[dws]|\[\^?\]?(?:\\.|[^\]\\])+\]|[^\\\[\]{}()*+?|^$])"
    r"(?:(?P<maybe>\?)|\{(?P<least>[0-9]{1,3})(?:,(?P<most>[0-9]{1,3}))?\})?"
)
_CLASSES = {"d": "[0-9]", "w": r"[^\W]", "s": "[ \t\n\r]"}  # after a backslash


class _Place(NamedTuple):
    """Place for one character of a match."""

    accepts: re.Pattern[str]
    optional: bool


class Step(NamedTuple):
    """Answer at one place of a text. `end` of the longest match, None: no match; `open`: it may go on."""

    end: int | None
    open: bool


@dataclass(frozen=True, slots=True)
class Pattern:
    """Compiled pattern. `words`: it matches whole words only."""

    places: tuple[_Place, ...]
    words: bool
    _steps: dict[tuple[int, str], int] = field(default_factory=dict, compare=False)

    def match(self, text: str, start: int, end: int, *, final: bool) -> Step:
        """Match at `start`, reading up to `end`. `final`: no text follows."""
        last = len(self.places)
        states, best, at = self._reach(0), None, start
        while states:
            if states >> last & 1 and self._may_end(text, at, end, final):
                best = at
            if at == end or states == 1 << last:
                break
            states = self._step(states, text[at])
            at += 1
        goes_on = states != 0 and (self.words or states != 1 << last)
        return Step(best, at == end and goes_on and not final)

    def may_begin(self, letter: str) -> bool:
        return self._step(self._reach(0), letter) != 0

    def sign(self) -> str:
        """Return a regular expression of the characters that a match begins with."""
        first = [place for place in range(len(self.places)) if self._reach(0) >> place & 1]
        return "|".join(self.places[place].accepts.pattern for place in first)

    def _may_end(self, text: str, at: int, end: int, final: bool) -> bool:
        if not self.words:
            return True
        return final if at == end else not _is_word(text[at])

    def _step(self, states: int, letter: str) -> int:
        known = self._steps.get((states, letter))
        if known is not None:
            return known
        reached = 0
        for place, (accepts, _) in enumerate(self.places):
            if states >> place & 1 and accepts.match(letter):
                reached |= self._reach(place + 1)
        if len(self._steps) < _MOST_STATES:
            self._steps[states, letter] = reached
        return reached

    def _reach(self, place: int) -> int:
        """Return the places that may be next, as bits, from `place` on: those after optional ones too."""
        reached = 1 << place
        while place < len(self.places) and self.places[place].optional:
            place += 1
            reached |= 1 << place
        return reached


def _is_word(letter: str) -> bool:
    return letter == "_" or (letter.isalnum() and letter < "\u0600")  # beyond: scripts without spaces too


def compile_pattern(text: str) -> Pattern:
    """Compile a pattern. Raises `ValueError`: it is outside the syntax, may be empty, or may be too long."""
    places: list[_Place] = []
    at = 0
    while at < len(text):
        item = _ITEM.match(text, at)
        if item is None:
            raise ValueError(
                f"{text[at : at + 10]!r}: a pattern has characters, classes such as [A-Z], ?, {{n}} and {{m,n}}; "
                "other signs need a backslash; write several patterns for a choice"
            )
        places += _times(item)
        at = item.end()
    if len(places) > LONGEST:
        raise ValueError(f"may match at most {LONGEST} characters")
    if all(place.optional for place in places):
        raise ValueError("matches the empty text")
    return Pattern(tuple(places), words=False)


def _times(item: re.Match[str]) -> list[_Place]:
    one = item["one"]
    try:
        own = _CLASSES.get(one[1:]) if one[0] == "\\" else None
        accepts = re.compile(own or (one if one[0] in "[\\." else re.escape(one)))
    except re.error as error:
        raise ValueError(f"{one}: {error.msg}") from None
    least = int(item["least"]) if item["least"] else 0 if item["maybe"] else 1
    most = int(item["most"]) if item["most"] else max(least, 1) if not item["least"] else least
    if most < least or most > LONGEST:
        raise ValueError(f"{item[0]}: {{m,n}} goes up, to at most {LONGEST}")
    return [_Place(accepts, optional=False)] * least + [_Place(accepts, optional=True)] * (most - least)


def compile_words(phrase: str) -> Pattern:
    """Compile a word or phrase, in upper or lower case, whose words any white space is between."""
    words = phrase.split()
    places: list[_Place] = []
    for number, word in enumerate(words):
        stem = word.removesuffix("*")
        if not stem or "*" in stem:
            raise ValueError(f"{word!r}: * stands for the ending of a word, after its beginning")
        if number:
            places += [_Place(_SPACE, optional=False)] + [_Place(_SPACE, optional=True)] * 2
        places += [_Place(re.compile(re.escape(letter), re.IGNORECASE), optional=False) for letter in stem]
        if stem != word:
            places += [_Place(_LETTER, optional=True)] * _ENDING
    if not places or len(places) > LONGEST:
        raise ValueError(f"is empty, or may match more than {LONGEST} characters")
    return Pattern(tuple(places), words=True)


def sign_of_words(phrases: Iterable[str]) -> list[str]:
    """Return regular expressions of how the phrases begin, as trees, so that many cost no more than few."""
    tree: dict[str, Any] = {}
    for phrase in phrases:
        node = tree
        for letter in phrase.split()[0].removesuffix("*").lower()[:_SIGN]:
            node = node.setdefault(letter, {})
        node[""] = {}
    begins = [(first, _branches(below)) for first, below in sorted(tree.items())]
    return [f"{re.escape(form)}(?i:{rest})" for one, rest in begins for form in sorted({one, one.upper()})]


def _branches(tree: dict[str, Any]) -> str:
    if "" in tree or not tree:
        return ""
    return (
        "(?:" + "|".join(re.escape(letter) + _branches(below) for letter, below in sorted(tree.items())) + ")"
    )


_SPACE, _LETTER = re.compile(r"\s"), re.compile(r"\w")
