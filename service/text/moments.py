"""Times in text: the end of an override (RFC 3339), in the future and within a year."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

LONGEST = timedelta(days=366)


def parse_end(value: object) -> int:
    """Parse the end of an override such as `2026-12-01T06:00:00Z`, as ms since 1970. Raises `ValueError`."""
    try:
        # `fromisoformat` accepts any character between date and time.
        moment = datetime.fromisoformat(value) if isinstance(value, str) and value.isascii() else None
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("must be a time such as 2026-12-01T06:00:00Z")
    now = datetime.now(UTC)
    if not now < moment <= now + LONGEST:
        raise ValueError("must be in the future, a year ahead at most")
    return int(moment.timestamp() * 1000)
