"""The end of sessions, whether their time is over or their user deletes them: bit by bit.

A session may have thousands of runs, each with its steps. These go first, some at a time: whoever waits to write waits
for one such batch and not for a whole session. Its readers see none of it: for them it is gone once its time is over.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from service.store.database import Transaction
from service.store.schema import messages, runs, sessions
from service.store.sessions import unfinished
from service.types import now_ms

GRACE_MS = 300_000  # a turn that was let in at the last moment has begun by then, and its session goes on
DELETED = 0  # `expires_at` of a session that its user deletes
_RUNS = sa.exists().where(runs.c.session_id == sessions.c.id)
_MESSAGES = sa.exists().where(messages.c.session_id == sessions.c.id)
_GOING = (
    sa.exists().where(runs.c.session_id == sessions.c.id, runs.c.finished_at.is_(None)).correlate(sessions)
)


def close(tx: Transaction, session_id: str) -> bool:
    """Let a session's time be over: it is gone for its readers. False: one of its runs has not ended."""
    tx.row(sa.select(sessions.c.id).where(sessions.c.id == session_id).with_for_update())
    if unfinished(tx, session_id):
        return False
    tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(expires_at=DELETED))
    return True


def clear(tx: Transaction, ids: Sequence[str], limit: int) -> int:
    """Delete `limit` rows, or what there is, of sessions that are over: runs, messages, then the sessions; how many.

    What was spent stays on the books, which hold no content.
    """
    old = sa.select(runs.c.id).where(runs.c.session_id.in_(ids), runs.c.finished_at.is_not(None))
    old = old.limit(limit).with_for_update(skip_locked=True)  # those in use are left for the next time
    gone = tx.execute(sa.delete(runs).where(runs.c.id.in_(old)))
    key = (messages.c.session_id, messages.c.seq)
    said = sa.select(*key).where(messages.c.session_id.in_(ids)).limit(limit - gone)
    said = said.with_for_update(skip_locked=True)
    gone += tx.execute(sa.delete(messages).where(sa.tuple_(*key).in_(said)))
    if gone < limit:
        gone += tx.execute(sa.delete(sessions).where(sessions.c.id.in_(ids), ~_RUNS, ~_MESSAGES))
    return gone


def expire(tx: Transaction, limit: int) -> int:
    """Clear the sessions whose time has been over for longest, and that have no run under way; how many rows.

    Fewer than `limit`: no more are to be had.
    """
    # Few sessions at a time, or each batch would look at all that are over.
    over = (sessions.c.expires_at <= now_ms() - GRACE_MS, ~_GOING)
    query = sa.select(sessions.c.id).where(*over).order_by(sessions.c.expires_at).limit(limit)
    ids = [row["id"] for row in tx.rows(query.with_for_update(skip_locked=True))]
    return clear(tx, ids, limit) if ids else 0
