"""Suggest the known name that a misspelt one is closest to."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

MAX_CHARACTERS = 64  # of a name that is compared: the time it takes grows with the square


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'limits'?`; an empty string if no known name is close."""
    close = get_close_matches(word[:MAX_CHARACTERS], list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def unknown(word: str, known: Iterable[str]) -> str:
    """Return the closest name, or all names if none is close."""
    names = sorted(known)
    return did_you_mean(word, names) or f"; there are: {', '.join(names) or 'none'}"
