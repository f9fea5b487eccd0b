"""Size bound of lists read from the database, besides their row limit."""

from __future__ import annotations

from collections.abc import Iterable

MAX_CHARACTERS = 1024 * 1024  # characters of large columns read for one list; an answer holds less


def fitting(sized: Iterable[tuple[str | int, int]]) -> list[str | int]:
    """Take keys of (key, size) until their sizes exceed `MAX_CHARACTERS` together, and one more.

    The extra key tells the caller, who cuts the page to less than `MAX_CHARACTERS`, that there are more rows.
    """
    keys: list[str | int] = []
    total = 0
    for key, size in sized:
        keys.append(key)
        if total > MAX_CHARACTERS:
            break
        total += size
    return keys
