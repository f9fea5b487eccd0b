"""Limits on runs, of users and of keys: set for good, or as an override that ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import Row
from service.store.schema import api_keys, users
from service.types import now_ms

COLUMNS = ("limit_runs", "limit_runs_until", "limit_runs_after")


def in_force(row: Row, prefix: str = "") -> dict[str, Any]:
    """Return the columns as they are now: after the end of an override (by this process's clock), the limit before it.

    `prefix`: of their names in the row.
    """
    rate, until, after = (row.get(prefix + name) for name in COLUMNS)
    if until is not None and until <= now_ms():
        rate, until, after = after, None, None
    return dict(zip(COLUMNS, (rate, until, after), strict=True))


def unchanged_ms(row: Row, prefixes: Sequence[str]) -> list[int]:
    """Return in how many ms overrides of a row end; without those that have. `prefixes`: of the columns' names."""
    ends = (row.get(f"{prefix}limit_runs_until") for prefix in prefixes)
    return [end - now_ms() for end in ends if end is not None and end > now_ms() + 1]


class NewLimit(NamedTuple):
    """Rate such as `60/minute`, or "" for none of one's own; until a time (ms), after which the one before is back."""

    rate: str
    until: int | None = None


def of_user(rate: str | None, until: int | None) -> dict[str, Any]:
    """Return the changes of a user's columns that set the limit, or override it `until` a time (ms).

    An override replaces another, not the limit before that.
    """
    return _changes(users, rate, until)


def of_key(rate: str | None, until: int | None) -> dict[str, Any]:
    """Return the changes of a key's columns, as `of_user`."""
    return _changes(api_keys, rate, until)


def _changes(table: sa.Table, rate: str | None, until: int | None) -> dict[str, Any]:
    before = sa.case((table.c.limit_runs_until.is_(None), table.c.limit_runs), else_=table.c.limit_runs_after)
    return dict(zip(COLUMNS, (rate, until, None if until is None else before), strict=True))
