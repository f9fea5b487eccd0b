"""Spell checking of setting names and choices: a misspelt setting would silently have no effect."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Minimal difflib ratio: REDIS_URI resembles REDIS_URL, SLIPWAY_PORT does not resemble SLIPWAY_HOME.
SIMILARITY = 0.88
MIN_LENGTH = 8  # characters; shorter names resemble too many variables of other programs
# Variables of the offline model, of OpenTelemetry's own, and of other programs in the same shell.
IGNORED_PREFIXES = ("OFFLINE_MODEL_", "OTEL_", "LOGLEVEL", "REDIS_URI", "DATABASE_URI")


def misspelt(names: Iterable[str], settings: Iterable[str]) -> dict[str, str]:
    """Return a fault for each of `names` that is nearly, but not exactly, one of `settings` or its NAME_FILE."""
    known = [form for name in settings for form in (name, f"{name}_FILE")]
    unknown = (
        name for name in sorted(set(names).difference(known)) if len(name) >= MIN_LENGTH and name.isascii()
    )
    faults = {}
    for name in unknown:
        close = (
            [] if name.startswith(IGNORED_PREFIXES) else get_close_matches(name.upper(), known, 1, SIMILARITY)
        )
        if close:
            faults[name] = f"is no setting; did you mean {close[0]}?"
    return faults


def suggestion(text: str, choices: Iterable[str]) -> str:
    """Return `; did you mean …?` for a choice that begins with `text` or resembles it, else an empty string."""
    by_lower = {choice.lower(): choice for choice in choices}
    wanted = text.strip().lower()
    begin = [lower for lower in by_lower if wanted and lower.startswith(wanted)]
    found = begin or get_close_matches(wanted, by_lower, 1)
    return f"; did you mean {by_lower[found[0]]}?" if found else ""
