"""Rows of sessions and their messages. Only the run that holds a session (`busy_run_id`) adds messages to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service import exact_json
from service.errors import TooMany
from service.store.base import InsertOnce, Row, Transaction
from service.store.lists import fitting
from service.store.schema import messages, runs, sessions
from service.store.visibility import Visibility
from service.types import RunStatus, now_ms

MOST = (
    10_000  # sessions that one user may have; those that expired count until they are deleted, a minute later
)
_ALIVE = sessions.c.expires_at > sa.bindparam("now")
_BY_ID = sa.select(sessions).where(sessions.c.id == sa.bindparam("id"), _ALIVE)


# For lists: a session's metadata and summary may be large.
_LISTED = [column for column in sessions.c if column.key not in ("metadata", "summary")]


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Keep a new session. Raises `TooMany` where its user has `MOST`; a few more may pass at the same moment."""
    others = sessions.c.user_id == row["user_id"], sessions.c.id != row["id"]
    if tx.row(sa.select(sessions.c.id).where(*others).order_by(sessions.c.id).offset(MOST - 1).limit(1)):
        raise TooMany(f"You have {MOST} sessions: delete one first.")
    tx.execute(InsertOnce(sessions), {**row, "metadata": exact_json.kept(row["metadata"])})


def get(tx: Transaction, session_id: str, visible: Visibility) -> Row | None:
    """Find one session that is visible and has not expired."""
    row = tx.row(_BY_ID, {"id": session_id, "now": now_ms()})
    return row if row is not None and visible.covers(row["user_id"], row["agent"]) else None


def summary(tx: Transaction, session_id: str) -> Row | None:
    """`summary` and `summary_upto`, whether the session has expired or not."""
    query = sa.select(sessions.c.summary, sessions.c.summary_upto)
    return tx.row(query.where(sessions.c.id == session_id))


def recent(tx: Transaction, *, limit: int, before: str | None, visible: Visibility) -> list[Row]:
    """List visible sessions, newest first, without what may be large."""
    visible_ones = sa.select(*_LISTED).where(_ALIVE, *visible.where(sessions))
    query = visible_ones.order_by(sessions.c.id.desc()).limit(limit)
    if before is not None:
        query = query.where(sessions.c.id < before)
    return tx.rows(query, {"now": now_ms()})


def update(tx: Transaction, session_id: str, changes: dict[str, Any]) -> None:
    if "metadata" in changes:
        changes = {**changes, "metadata": exact_json.kept(changes["metadata"])}
    tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(changes))


# --- turns ------------------------------------------------------------------------------------------


def take(tx: Transaction, session_id: str, run_id: str) -> bool:
    """Make the session this run's own. False: another unfinished run has it, or was queued for it earlier.

    A holder that has ended or vanished does not count. A session that is gone cannot be busy.
    """
    # Locked by a statement of its own: PostgreSQL then looks at the holder as it is after any wait.
    locked = sa.select(sessions.c.id).where(sessions.c.id == session_id).with_for_update()
    if tx.row(locked) is None:
        return True
    unfinished = sa.select(runs.c.id).where(runs.c.finished_at.is_(None))
    held = sa.exists(unfinished.where(runs.c.id == sessions.c.busy_run_id))
    earlier = sa.exists(
        unfinished.where(
            runs.c.session_id == session_id, runs.c.status == RunStatus.QUEUED, runs.c.id < run_id
        )
    )
    free = sa.and_(sa.or_(sessions.c.busy_run_id.is_(None), ~held), ~earlier)
    statement = (
        sa.update(sessions)
        .where(sessions.c.id == session_id, sa.or_(sessions.c.busy_run_id == run_id, free))
        .values(busy_run_id=run_id)
    )
    return tx.execute(statement) == 1


def release(tx: Transaction, session_id: str, run_id: str, changes: dict[str, Any], title: str) -> bool:
    """The turn is over: `changes` are made, `title` is given to a session that has none.

    False: this run does not hold the session (any more), so it has nothing to add to it.
    """
    # Runs before the session, as everywhere: two transactions must not wait for each other's rows.
    queued = sa.update(runs).where(
        runs.c.session_id == session_id, runs.c.finished_at.is_(None), runs.c.status == RunStatus.QUEUED
    )
    tx.execute(queued.values(wake_at=now_ms()))
    named = sa.case((sessions.c.title == "", title), else_=sessions.c.title)
    statement = sa.update(sessions).where(sessions.c.id == session_id, sessions.c.busy_run_id == run_id)
    return tx.execute(statement.values({**changes, "title": named, "busy_run_id": None})) == 1


def unfinished(tx: Transaction, session_id: str) -> list[str]:
    """Runs of the session that have not ended."""
    query = sa.select(runs.c.id).where(runs.c.session_id == session_id, runs.c.finished_at.is_(None))
    return [row["id"] for row in tx.rows(query)]


# --- messages ---------------------------------------------------------------------------------------


def append(tx: Transaction, session_id: str, run_id: str, said: Sequence[dict[str, Any]], now: int) -> None:
    """Add `{"role", "content", "tokens"}` after the last message. Only by the run that just released it."""
    last = sa.select(sa.func.coalesce(sa.func.max(messages.c.seq), 0).label("seq"))
    row = tx.row(last.where(messages.c.session_id == session_id))
    first = (row["seq"] if row else 0) + 1
    added = [
        {**message, "session_id": session_id, "run_id": run_id, "seq": first + n, "created_at": now}
        for n, message in enumerate(said)
    ]
    tx.execute(sa.insert(messages), added)


def said(tx: Transaction, session_id: str, after: int) -> list[Row]:
    """Every message with a `seq` above `after`, in order."""
    query = sa.select(messages).where(messages.c.session_id == session_id, messages.c.seq > after)
    return tx.rows(query.order_by(messages.c.seq))


def latest(tx: Transaction, session_id: str, *, limit: int, before: int | None) -> list[Row]:
    """The last messages, or the last ones before `before`: newest first.

    Fewer than `limit` where they are long, see `fitting`.
    """
    sizes = sa.select(messages.c.seq, messages.c.tokens).where(messages.c.session_id == session_id)
    if before is not None:
        sizes = sizes.where(messages.c.seq < before)
    found = tx.rows(sizes.order_by(messages.c.seq.desc()).limit(limit))
    seqs = fitting((row["seq"], 4 * row["tokens"]) for row in found)  # a token is counted for four characters
    query = sa.select(messages).where(messages.c.session_id == session_id, messages.c.seq.in_(seqs))
    return tx.rows(query.order_by(messages.c.seq.desc()))


# --- the end ----------------------------------------------------------------------------------------


def delete(tx: Transaction, session_id: str) -> bool:
    """Delete a session with its messages and runs. False: one of its runs has not ended.

    What was spent stays on the books, which hold no content.
    """
    tx.row(sa.select(sessions.c.id).where(sessions.c.id == session_id).with_for_update())
    if unfinished(tx, session_id):
        return False
    tx.execute(sa.delete(runs).where(runs.c.session_id == session_id))
    tx.execute(sa.delete(sessions).where(sessions.c.id == session_id))
    return True


def expire(tx: Transaction, limit: int) -> int:
    """Delete sessions whose time is over, at most `limit`; how many."""
    going = sa.select(runs.c.id).where(runs.c.session_id == sessions.c.id, runs.c.finished_at.is_(None))
    query = sa.select(sessions.c.id).where(sessions.c.expires_at <= now_ms(), ~sa.exists(going)).limit(limit)
    return sum(delete(tx, row["id"]) for row in tx.rows(query))
