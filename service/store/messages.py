"""Messages of a session, a tree: the parent of each is `parent_seq`, or the message numbered before it where NULL.

A turn is appended by the run that holds the session, at its end; or for a run that ended while it was queued.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.lists import fitting
from service.store.schema import messages, runs

BATCH = 1_000  # messages read by one statement: databases bound the number of values
# Columns of the tree, without the content, which may be large.
_LINKS = [messages.c[name] for name in ("seq", "parent_seq", "run_id", "role", "tokens", "error_code")]


def newest(tx: Transaction, session_id: str) -> int:
    """Number of the session's last message; 0: none."""
    row = tx.row(sa.select(_newest(session_id).label("seq")))
    return int(row["seq"]) if row else 0


def exists(tx: Transaction, session_id: str, seq: int) -> bool:
    query = sa.select(messages.c.seq).where(messages.c.session_id == session_id, messages.c.seq == seq)
    return tx.row(query) is not None


def has_turn(tx: Transaction, session_id: str, run_id: str) -> bool:
    query = sa.select(messages.c.seq).where(messages.c.session_id == session_id, messages.c.run_id == run_id)
    return tx.row(query.limit(1)) is not None


def set_parent(tx: Transaction, session_id: str, run_id: str, parent: int | None) -> None:
    """Store the parent message of a run's turn; None: the session's last one now."""
    parent_seq = _newest(session_id) if parent is None else parent
    tx.execute(sa.update(runs).where(runs.c.id == run_id).values(parent_seq=parent_seq))


def append(
    tx: Transaction, session_id: str, run_id: str, turn: Sequence[dict[str, Any]], parent: int | None
) -> None:
    """Append a turn. Its parent is the run's stored one, else `parent`, else the session's last message.

    The caller holds a lock on the session's row.
    """
    stored = sa.select(runs.c.parent_seq).where(runs.c.id == run_id).scalar_subquery()
    row = tx.row(sa.select(_newest(session_id).label("last"), stored.label("parent")))
    assert row is not None
    last = row["last"]
    parent_seq = next((seq for seq in (row["parent"], parent) if seq is not None), last)
    rows = [
        {**message, "session_id": session_id, "run_id": run_id, "seq": last + n, "parent_seq": None}
        for n, message in enumerate(turn, 1)
    ]
    rows[0]["parent_seq"] = None if parent_seq == last else parent_seq
    tx.execute(sa.insert(messages), rows)


def links(tx: Transaction, session_id: str, after: int, last: int) -> list[Row]:
    """Read messages with `after` < seq <= `last`, in order, without their content."""
    query = sa.select(*_LINKS).where(messages.c.session_id == session_id)
    return tx.rows(query.where(messages.c.seq > after, messages.c.seq <= last).order_by(messages.c.seq))


def content(tx: Transaction, session_id: str, seqs: Sequence[int]) -> dict[int, Any]:
    query = sa.select(messages.c.seq, messages.c.content).where(messages.c.session_id == session_id)
    return {
        row["seq"]: row["content"]
        for start in range(0, len(seqs), BATCH)
        for row in tx.rows(query.where(messages.c.seq.in_(seqs[start : start + BATCH])))
    }


def latest(tx: Transaction, session_id: str, *, limit: int, before: int | None) -> list[Row]:
    """Read the last messages, or the last before number `before`: newest first.

    Fewer than `limit` where they are long, see `fitting`.
    """
    sizes = _sizes(session_id)
    if before is not None:
        sizes = sizes.where(messages.c.seq < before)
    found = _whole(tx, session_id, sizes.order_by(messages.c.seq.desc()).limit(limit))
    return found[::-1]


def following(tx: Transaction, session_id: str, *, after: int, limit: int) -> list[Row]:
    """Read the first messages after number `after`, oldest first; fewer than `limit` where they are long."""
    sizes = _sizes(session_id).where(messages.c.seq > after)
    return _whole(tx, session_id, sizes.order_by(messages.c.seq).limit(limit))


def _newest(session_id: str) -> sa.ScalarSelect[int]:
    last = sa.select(sa.func.coalesce(sa.func.max(messages.c.seq), 0))
    return last.where(messages.c.session_id == session_id).scalar_subquery()


def _sizes(session_id: str) -> sa.Select[Any]:
    return sa.select(messages.c.seq, messages.c.tokens).where(messages.c.session_id == session_id)


def _whole(tx: Transaction, session_id: str, sizes: sa.Select[Any]) -> list[Row]:
    """Read whole rows of the messages of `sizes`, as far as they fit one list; in order of their numbers."""
    # Estimated as four characters a token.
    seqs = fitting((row["seq"], 4 * row["tokens"]) for row in tx.rows(sizes))
    query = sa.select(messages).where(messages.c.session_id == session_id, messages.c.seq.in_(seqs))
    return tx.rows(query.order_by(messages.c.seq))
