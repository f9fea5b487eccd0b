"""The end of sessions whose time is over: bit by bit.

A session may have thousands of runs, each with its steps. These go first, some at a time: whoever waits to write waits
for one such batch and not for a whole session.
"""

from __future__ import annotations

import sqlalchemy as sa

from service.store.database import Transaction
from service.store.schema import messages, runs, sessions
from service.types import now_ms

GRACE_MS = 300_000  # a turn that was let in at the last moment has begun by then, and its session goes on
_RUNS = sa.exists().where(runs.c.session_id == sessions.c.id)
_MESSAGES = sa.exists().where(messages.c.session_id == sessions.c.id)
_GOING = (
    sa.exists().where(runs.c.session_id == sessions.c.id, runs.c.finished_at.is_(None)).correlate(sessions)
)
_OVER = (sessions.c.expires_at <= sa.bindparam("now"), ~_GOING)


def expire_runs(tx: Transaction, limit: int) -> int:
    """Delete runs of sessions whose time is over and that have no run under way, at most `limit`; how many."""
    over = sa.select(sessions.c.id).where(*_OVER)
    old = sa.select(runs.c.id).where(runs.c.session_id.in_(over), runs.c.finished_at.is_not(None))
    old = old.limit(limit).with_for_update(skip_locked=True)  # those in use are left for the next time
    return tx.execute(sa.delete(runs).where(runs.c.id.in_(old)), {"now": now_ms() - GRACE_MS})


def expire_messages(tx: Transaction, limit: int) -> int:
    """The same with their messages."""
    key = (messages.c.session_id, messages.c.seq)
    over = sa.select(sessions.c.id).where(*_OVER)
    old = sa.select(*key).where(messages.c.session_id.in_(over)).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(messages).where(sa.tuple_(*key).in_(old)), {"now": now_ms() - GRACE_MS})


def expire(tx: Transaction, limit: int) -> int:
    """Delete sessions whose time is over and of which nothing is left, at most `limit`; how many."""
    empty = (sessions.c.expires_at <= sa.bindparam("now"), ~_RUNS, ~_MESSAGES)
    query = sa.select(sessions.c.id).where(*empty).limit(limit).with_for_update(skip_locked=True)
    now = {"now": now_ms() - GRACE_MS}
    ids = [row["id"] for row in tx.rows(query, now)]
    # Once they are locked they are looked at again: a turn may have begun meanwhile.
    return tx.execute(sa.delete(sessions).where(sessions.c.id.in_(ids), *empty), now) if ids else 0
