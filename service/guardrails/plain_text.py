"""Text as a reader or a browser takes it: one case and width, without invisible characters, decoded."""

from __future__ import annotations

import html
import re
import unicodedata
from functools import lru_cache
from typing import NamedTuple

# Entities with any number of leading zeros, percent-encoded ASCII, escapes, else one character.
_TOKEN = re.compile(
    r"&(?:#[0-9]+|#[xX][0-9a-fA-F]+|[A-Za-z][A-Za-z0-9]{1,31});?|%[0-7][0-9a-fA-F]|\\.|.", re.S
)
_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~")  # ASCII, which Markdown lets a backslash escape
_DOTS = {"\u3002": ".", "\uff61": "."}  # which browsers take for dots of a host


@lru_cache(maxsize=4096)
def plain_character(character: str) -> str:
    """Return a character's plain form: NFKC, small, digits in ASCII; empty for an invisible one and for white space."""
    if character in _DOTS:
        return _DOTS[character]
    if unicodedata.category(character) == "Nd":
        return str(unicodedata.decimal(character))
    folded = unicodedata.normalize("NFKC", character).casefold()
    return "".join(one for one in folded if not one.isspace() and not _is_invisible(one))


def _is_invisible(character: str) -> bool:
    selector = "\ufe00" <= character <= "\ufe0f" or character == "\u034f"
    return selector or unicodedata.category(character) in ("Cf", "Cc")


class View(NamedTuple):
    """Plain form of a word; `at` is the place in the word of each character, and of the end."""

    text: str
    at: list[int]


def view_of(word: str, *, slashes: bool = False) -> View:
    """Decode a word. A backslash escapes the punctuation after it, as in Markdown; `slashes`: is one, as in URLs."""
    if word.isascii() and word.isprintable() and not any(mark in word for mark in "&%\\"):
        return View(word.lower(), list(range(len(word) + 1)))
    letters, at = [], []
    for match in _TOKEN.finditer(word):
        for offset, character in enumerate(_decoded(match[0], slashes)):
            for letter in plain_character(character):
                letters.append(letter)
                at.append(match.start() + (offset if _is_literal(match[0], slashes) else 0))
    return View("".join(letters), [*at, len(word)])


def _decoded(token: str, slashes: bool) -> str:
    if token[0] == "&":
        return html.unescape(token)
    if token[0] == "%" and len(token) == 3:
        return chr(int(token[1:], 16))
    if token[0] == "\\":
        if slashes:
            return token.replace("\\", "/")
        return token[1:] if token[1:] in _PUNCTUATION else token
    return token


def _is_literal(token: str, slashes: bool) -> bool:
    """Return whether the characters of a token are at their own places, not decoded from all of it."""
    return len(token) == 1 or _decoded(token, slashes) == token or (slashes and token[0] == "\\")
