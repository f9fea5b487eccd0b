"""Bounds of a list that is read from the database: by size as well as by count."""

from __future__ import annotations

from collections.abc import Iterable

MOST = 1024 * 1024  # characters of large columns read for one list; an answer has less


def fitting(sized: Iterable[tuple[str | int, int]], most: int = MOST) -> list[str | int]:
    """Keys of the first rows, given as (key, size), until they have more than `most` together, and the next one's.

    Whoever cuts the page to less than `most` then sees that it goes on.
    """
    keys: list[str | int] = []
    total = 0
    for key, size in sized:
        keys.append(key)
        if total > most:
            break
        total += size
    return keys
