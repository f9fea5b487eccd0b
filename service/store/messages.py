"""Rows of messages. Each goes on from one before it: `parent_seq`, or the one numbered before it where that is NULL.

A turn's messages are added by the run that holds the session, at its end; or by one that was ended while it waited.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from service.store.database import Row, Transaction
from service.store.lists import fitting
from service.store.schema import messages, runs

LOOKED_UP = 1_000  # messages read by one statement
# What tells how messages hang together, without what may be large.
_LINKS = [messages.c[name] for name in ("seq", "parent_seq", "run_id", "role", "tokens", "error_code")]


def newest(tx: Transaction, session_id: str) -> int:
    """Number of the session's last message; 0: it has none."""
    row = tx.row(sa.select(_newest(session_id).label("seq")))
    return int(row["seq"]) if row else 0


def exists(tx: Transaction, session_id: str, seq: int) -> bool:
    query = sa.select(messages.c.seq).where(messages.c.session_id == session_id, messages.c.seq == seq)
    return tx.row(query) is not None


def has_turn(tx: Transaction, session_id: str, run_id: str) -> bool:
    """Whether a run has left messages in the session."""
    query = sa.select(messages.c.seq).where(messages.c.session_id == session_id, messages.c.run_id == run_id)
    return tx.row(query.limit(1)) is not None


def go_on(tx: Transaction, session_id: str, run_id: str, parent: int | None) -> None:
    """Note which message a run's turn goes on from; None: the session's last one at this moment."""
    parent_seq = _newest(session_id) if parent is None else parent
    tx.execute(sa.update(runs).where(runs.c.id == run_id).values(parent_seq=parent_seq))


def append(
    tx: Transaction, session_id: str, run_id: str, said: Sequence[dict[str, Any]], parent: int | None
) -> None:
    """Add a turn after the last message. It goes on from where its run does, else from `parent`, else from the last.

    The caller holds a lock on the session's row.
    """
    of_its_run = sa.select(runs.c.parent_seq).where(runs.c.id == run_id).scalar_subquery()
    row = tx.row(sa.select(_newest(session_id).label("last"), of_its_run.label("parent")))
    assert row is not None
    last = row["last"]
    goes_on_from = next((seq for seq in (row["parent"], parent) if seq is not None), last)
    added = [
        {**message, "session_id": session_id, "run_id": run_id, "seq": last + n, "parent_seq": None}
        for n, message in enumerate(said, 1)
    ]
    added[0]["parent_seq"] = None if goes_on_from == last else goes_on_from
    tx.execute(sa.insert(messages), added)


def links(tx: Transaction, session_id: str, after: int, last: int) -> list[Row]:
    """Messages numbered from above `after` to `last`, in order, without their content."""
    query = sa.select(*_LINKS).where(messages.c.session_id == session_id)
    return tx.rows(query.where(messages.c.seq > after, messages.c.seq <= last).order_by(messages.c.seq))


def content(tx: Transaction, session_id: str, seqs: Sequence[int]) -> dict[int, Any]:
    """Content of these messages, by their number."""
    query = sa.select(messages.c.seq, messages.c.content).where(messages.c.session_id == session_id)
    return {
        row["seq"]: row["content"]
        for some in _batches(seqs)
        for row in tx.rows(query.where(messages.c.seq.in_(some)))
    }


def latest(tx: Transaction, session_id: str, *, limit: int, before: int | None) -> list[Row]:
    """The last messages, or the last ones before `before`: newest first.

    Fewer than `limit` where they are long, see `fitting`.
    """
    sizes = _sizes(session_id)
    if before is not None:
        sizes = sizes.where(messages.c.seq < before)
    found = _whole(tx, session_id, sizes.order_by(messages.c.seq.desc()).limit(limit))
    return found[::-1]


def following(tx: Transaction, session_id: str, *, after: int, limit: int) -> list[Row]:
    """The first messages after number `after`, oldest first; fewer than `limit` where they are long."""
    sizes = _sizes(session_id).where(messages.c.seq > after)
    return _whole(tx, session_id, sizes.order_by(messages.c.seq).limit(limit))


def _newest(session_id: str) -> sa.ScalarSelect[int]:
    last = sa.select(sa.func.coalesce(sa.func.max(messages.c.seq), 0))
    return last.where(messages.c.session_id == session_id).scalar_subquery()


def _sizes(session_id: str) -> sa.Select[Any]:
    return sa.select(messages.c.seq, messages.c.tokens).where(messages.c.session_id == session_id)


def _whole(tx: Transaction, session_id: str, sizes: sa.Select[Any]) -> list[Row]:
    """Whole rows of the messages that `sizes` finds, as far as they fit one list; in order of their numbers."""
    # A token is counted for four characters.
    seqs = fitting((row["seq"], 4 * row["tokens"]) for row in tx.rows(sizes))
    query = sa.select(messages).where(messages.c.session_id == session_id, messages.c.seq.in_(seqs))
    return tx.rows(query.order_by(messages.c.seq))


def _batches(seqs: Sequence[int]) -> Iterator[Sequence[int]]:
    """A database takes so many values in one statement."""
    yield from (seqs[start : start + LOOKED_UP] for start in range(0, len(seqs), LOOKED_UP))
