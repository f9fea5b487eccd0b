"""What was used, by day, agent, model and user: the ledger's sums in the contract's words."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from service.store import ledger
from service.store.base import Database, Row
from service.store.visibility import Visibility
from service.types import usd

GROUPS = ("day", "agent", "model", "user")
FIGURES = (
    "calls",
    "input_tokens",
    "output_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cost_usd",
    "cache_savings_usd",
)


def usage(
    db: Database,
    *,
    since: int,
    until: int,
    by: Sequence[str],
    visible: Visibility,
    limit: int | None = None,
    offset: int = 0,
) -> list[dict[str, Any]]:
    """Sum the visible calls of `since` <= t < `until` (ms): one dictionary per group; without groups, one of all.

    A call that is not settled yet is not in it. `limit` groups at most, after the first `offset`, in their order.
    """
    found = db.query(
        lambda tx: ledger.usage(
            tx, since=since, until=until, by=by, visible=visible, limit=limit, offset=offset
        )
    )
    return [_line(row, by) for row in found]


def as_csv(lines: Sequence[dict[str, Any]], by: Sequence[str]) -> str:
    """The same with a line of names first."""
    out = io.StringIO()
    writer = csv.DictWriter(out, [*by, *FIGURES])
    writer.writeheader()
    writer.writerows(lines)
    return out.getvalue()


def day_of(number: int) -> str:
    """The date of a day counted from 1970."""
    return datetime.fromtimestamp(number * 86_400, UTC).date().isoformat()


def _line(row: Row, by: Sequence[str]) -> dict[str, Any]:
    groups = {name: day_of(row[name]) if name == "day" else row[name] for name in by}
    return {
        **groups,
        "calls": row["calls"],
        "input_tokens": row["input_tokens"],
        "output_tokens": row["output_tokens"],
        "cache_read_input_tokens": row["cache_read_tokens"],
        "cache_creation_input_tokens": row["cache_creation_tokens"],
        "cost_usd": usd(row["amount_nano"]),
        "cache_savings_usd": usd(row["saved_nano"]),
    }
