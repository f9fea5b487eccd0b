"""Limits on runs, such as `60/minute`, as they are set."""

from __future__ import annotations

import re
from typing import Any

from service.errors import fault
from service.types import rfc3339

_RATE = re.compile(r"[1-9][0-9]{0,8}/(?:[1-9][0-9]{0,4} ?)?(?:second|minute|hour|day)s?")


def is_rate(text: str) -> bool:
    """Return whether a text is a rate, or empty: none."""
    return not text or _RATE.fullmatch(text) is not None


def checked_rate(rate: str) -> str:
    """Return a rate, or none. Raises `Invalid`."""
    if not is_rate(rate):
        raise fault("/limit_runs", "Use a rate such as 60/minute.")
    return rate


def limit_told(rate: str | None, until: int | None) -> dict[str, Any]:
    """Return what the audit says of a limit on runs."""
    return {"limit_runs": rate} | ({} if until is None else {"until": rfc3339(until)})
