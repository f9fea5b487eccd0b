"""When two questions are the same but for how they are written: Unicode, case, spacing, punctuation, courtesies.

A wrong answer costs more than a missed one, so whatever may carry meaning is kept: numbers and their signs, negations,
symbols, the `!` of a factorial. Texts that are material rather than a question (code, quotations, lists, several lines,
something after a colon) and long ones have no plain form: they are the same only when they are the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from unicodedata import normalize

LONGEST = 400  # characters of a question that has a plain form

# Signs of code, markup, addresses, formulas and quotations.
_MATERIAL = re.compile(
    r"""[`{}\[\]<>=|\\^*_~"“”„«»\n]|\w\(|://|:(\s|$)|(^|\s)['‘’]|[a-z][A-Z]|\w\.\w*[^\W\d]"""
)
_APART = re.compile(r"\s+([.,;!?…]+)(?=\s|$)")  # a mark that stands apart from its word
_ENDS = ".,;?…"
_FACTORIAL = re.compile(r"(\d|\b\w)[)%]?!+[.,;?…]*$")
# Words that mean something else in capitals.
_CAPITALS = frozenset({"US", "IT", "WHO", "AIDS", "OR", "IN", "ME", "HI", "OK", "AM", "PM"})


class PlainForm:
    """`stop_phrases` are courtesies that are left out where a question begins or ends with them."""

    def __init__(self, stop_phrases: Sequence[str]) -> None:
        phrases = {tuple(self._words(phrase)) for phrase in stop_phrases}
        self._phrases = sorted(phrases - {()}, key=len, reverse=True)
        self._edges = {phrase[place] for phrase in self._phrases for place in (0, -1)}

    def of(self, text: str) -> str | None:
        """What all ways to write this question have in common; None when only the same text will do."""
        text = text.strip()
        if len(text) > LONGEST or _MATERIAL.search(text):
            return None
        if not text.isascii() and any(map(_is_raised, text)):
            return None
        words = self._without_courtesies(self._words(text))
        return " ".join(words) if len(words) > 1 else None

    @staticmethod
    def _words(text: str) -> list[str]:
        plain = text if text.isascii() else normalize("NFKC", text).replace("’", "'")
        shouted = plain.isupper()
        words = (_word(word, shouted) for word in _APART.sub(r"\1", plain).split())
        return [word for word in words if word]

    def _without_courtesies(self, words: list[str]) -> list[str]:
        found = True
        while found and words and (words[0] in self._edges or words[-1] in self._edges):
            found = False
            for phrase in self._phrases:
                size = len(phrase)
                if tuple(words[:size]) == phrase:
                    words, found = words[size:], True
                if tuple(words[-size:]) == phrase:
                    words, found = words[:-size], True
        return words


def _word(word: str, shouted: bool) -> str:
    """Without the marks of the sentence around it, and in small letters unless its capitals tell it apart."""
    marks = _ENDS if "!" in word and _FACTORIAL.search(word) else _ENDS + "!"
    word = word.lstrip("¿¡").rstrip(marks)
    return word if word in _CAPITALS and not shouted else word.casefold()


def _is_raised(sign: str) -> bool:
    """Digits such as ² or ½: NFKC would make 5² the same as 52."""
    return sign.isnumeric() and not sign.isdecimal() and normalize("NFKC", sign) != sign
