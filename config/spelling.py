"""Finds misspelt names and choices: a setting whose name is wrong would be silently without effect."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

LIKENESS = (
    0.88  # of two names, by difflib's ratio: REDIS_URI is like REDIS_URL, SLIPWAY_PORT not like SLIPWAY_HOME
)
SHORTEST = 8  # characters: too many names of other programs are like a shorter one
# Settings of a program of its own, and names that other programs read from a shell which they share with Slipway.
OTHERS = ("OFFLINE_MODEL_", "LOGLEVEL", "REDIS_URI", "DATABASE_URI")


def misspelt(names: Iterable[str], settings: Iterable[str]) -> dict[str, str]:
    """What is wrong with each of `names` that is nearly, but not quite, one of `settings` or its NAME_FILE."""
    known = [form for name in settings for form in (name, f"{name}_FILE")]
    looked_at = (
        name for name in sorted(set(names).difference(known)) if len(name) >= SHORTEST and name.isascii()
    )
    faults = {}
    for name in looked_at:
        close = [] if name.startswith(OTHERS) else get_close_matches(name.upper(), known, 1, LIKENESS)
        if close:
            faults[name] = f"is no setting; did you mean {close[0]}?"
    return faults


def suggestion(text: str, choices: Iterable[str]) -> str:
    """`; did you mean …?` where one of the choices begins like `text`, or is much like it, else nothing."""
    by_lower = {choice.lower(): choice for choice in choices}
    wanted = text.strip().lower()
    begin = [lower for lower in by_lower if wanted and lower.startswith(wanted)]
    found = begin or get_close_matches(wanted, by_lower, 1)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""
