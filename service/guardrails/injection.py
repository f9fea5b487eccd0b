"""Detector of instructions in text from outside. A hint for people and statistics: nothing depends on it.

What keeps an injected instruction from having an effect are taint and approvals, whatever is found here; see
docs/untrusted-text.md, with what is found and missed.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

import orjson

from service.guardrails.injection_signs import ABOUT, EXAMPLE, NOT, NOT_AFTER, SIGNS, Sign
from service.guardrails.taint import text_in

MOST = 200_000  # characters of a text that are read
WINDOW = 600  # characters within which signs belong together
ENOUGH = 3  # weight of signs in a window …
MORE = 2  # … and as much more in a text that is about attacks
MOST_ABOUT = 2  # words about attacks that make it one
MOST_MATCHES = 200  # of one sign
MOST_BLOBS = 8  # of base64, each of …
MAX_BLOB = 8_000  # … so many characters
SMUGGLED = 8  # invisible tag characters in a row
MOST_BETWEEN = 20  # invisible characters between letters, if they are also a quarter of a text
_BETWEEN = re.compile("[\u00ad\u200b-\u200d\u2060\ufeff]")
_WORD = re.compile(r"\w+")
_BLOB = re.compile(r"[A-Za-z0-9+/]{48,}={0,2}")
# Letters of Unicode's tags, which are invisible; flags of regions are made of them, too.
_TAGS = re.compile(rf"(?<!\U0001f3f4)[\U000e0020-\U000e007e]{{{SMUGGLED},}}")


class _Match(NamedTuple):
    at: int
    sign: str
    weight: int
    core: bool


def find_instructions(text: str) -> tuple[str, ...]:
    """Return the names of the signs that instructions to a model have in a text; empty: none are found."""
    text = _told(text[:MOST])
    if not text.isascii() and _is_smuggled(text):
        return ("smuggled",)
    found = _signs(_plain(text))
    if not found and any(_signs(_plain(inner)) for inner in _decoded(text)):
        return ("encoded",)
    return found


def _told(text: str) -> str:
    """Return the texts in a tool's JSON; any other text as it is."""
    if text[:1] in ("{", "["):
        try:
            return text_in(orjson.loads(text)) or text
        except orjson.JSONDecodeError:
            return text
    return text


def _is_smuggled(text: str) -> bool:
    """Return whether a text hides letters in Unicode's tags, or its own between invisible characters."""
    between = len(_BETWEEN.findall(text))
    return _TAGS.search(text) is not None or (between >= MOST_BETWEEN and 4 * between > len(text))


def _plain(text: str) -> str:
    """Return a text in small letters, of one width and without invisible characters."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(one for one in text if one in "\n\t" or unicodedata.category(one) not in ("Cf", "Cc"))
    return text.lower().replace("’", "'")


def _signs(text: str) -> tuple[str, ...]:
    words = set(_WORD.findall(text))
    signs = [sign for sign in SIGNS if sign.words & words]
    if not any(sign.core for sign in signs) or sum(sign.weight for sign in signs) < ENOUGH:
        return ()
    matches = sorted(match for sign in signs for match in _matches(sign, text))
    if not any(match.core for match in matches):
        return ()
    about = sum(1 for _, _ in zip(ABOUT.finditer(text), range(MOST_ABOUT), strict=False)) == MOST_ABOUT
    return _together(matches, ENOUGH + MORE if about else ENOUGH)


def _matches(sign: Sign, text: str) -> Iterator[_Match]:
    for match, _ in zip(sign.pattern.finditer(text), range(MOST_MATCHES), strict=False):
        before = text[max(0, match.start() - 40) : match.start()]
        if sign.core and (NOT.search(before) or EXAMPLE.search(before)):
            continue
        if sign.name == "override" and NOT_AFTER.search(text[match.start() : match.end() + 24]):
            continue
        yield _Match(match.start(), sign.name, sign.weight, sign.core)


def _together(matches: list[_Match], enough: int) -> tuple[str, ...]:
    """Return the signs of the first window that has enough of different ones; empty: there is none."""
    first = 0
    for last, match in enumerate(matches):
        while match.at - matches[first].at > WINDOW:
            first += 1
        inside = matches[first : last + 1]
        weights = {one.sign: one.weight for one in inside}
        weights.pop("override", None) if "override_all" in weights else None
        if sum(weights.values()) >= enough and any(one.core for one in inside):
            return tuple(sorted(weights))
    return ()


def _decoded(text: str) -> Iterator[str]:
    """Yield what is written in base64."""
    for match, _ in zip(_BLOB.finditer(text), range(MOST_BLOBS), strict=False):
        blob = match[0][:MAX_BLOB]
        try:
            yield binascii.a2b_base64(blob[: len(blob) // 4 * 4]).decode()
        except (binascii.Error, UnicodeDecodeError):
            continue
