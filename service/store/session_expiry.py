"""Deletion of expired or deleted sessions, in batches.

A session may have thousands of runs, each with its steps. These are deleted first, some at a time, so that other
writers wait for one batch and not for a whole session. Readers see no partly deleted session: for them it has expired.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from service.store import files
from service.store.database import Transaction
from service.store.runs import delete as delete_runs
from service.store.schema import messages, runs, sessions
from service.store.sessions import unfinished
from service.types import now_ms

GRACE_MS = 300_000  # until then a turn admitted at the last moment has begun, and renews its session
DELETED = 0  # `expires_at` of a session that its user deletes
_RUNS = sa.exists().where(runs.c.session_id == sessions.c.id)
_MESSAGES = sa.exists().where(messages.c.session_id == sessions.c.id)
_UNFINISHED = (
    sa.exists().where(runs.c.session_id == sessions.c.id, runs.c.finished_at.is_(None)).correlate(sessions)
)


def close(tx: Transaction, session_id: str) -> bool:
    """Expire a session now. False: one of its runs has not ended."""
    tx.row(sa.select(sessions.c.id).where(sessions.c.id == session_id).with_for_update())
    if unfinished(tx, session_id):
        return False
    tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(expires_at=DELETED))
    return True


def clear(tx: Transaction, ids: Sequence[str], limit: int) -> int:
    """Delete up to `limit` rows of expired sessions: runs, messages, then the sessions; return how many.

    The ledger keeps their costs, without content.
    """
    old = sa.select(runs.c.id).where(runs.c.session_id.in_(ids), runs.c.finished_at.is_not(None))
    old = old.limit(limit).with_for_update(skip_locked=True)  # locked ones are left for the next time
    deleted = delete_runs(tx, [row["id"] for row in tx.rows(old)])
    key = (messages.c.session_id, messages.c.seq)
    batch = sa.select(*key).where(messages.c.session_id.in_(ids)).limit(limit - deleted)
    batch = batch.with_for_update(skip_locked=True)
    deleted += tx.execute(sa.delete(messages).where(sa.tuple_(*key).in_(batch)))
    if deleted < limit:
        referred = files.of_sessions(tx, ids)
        deleted += tx.execute(sa.delete(sessions).where(sessions.c.id.in_(ids), ~_RUNS, ~_MESSAGES))
        files.drop_unused(tx, referred)
    return deleted


def expire(tx: Transaction, limit: int) -> int:
    """Clear the sessions that expired first and have no unfinished run; return how many rows were deleted.

    Fewer than `limit`: nothing is left.
    """
    # Few sessions at a time: otherwise each batch would read all expired ones.
    expired = (sessions.c.expires_at <= now_ms() - GRACE_MS, ~_UNFINISHED)
    query = sa.select(sessions.c.id).where(*expired).order_by(sessions.c.expires_at).limit(limit)
    ids = [row["id"] for row in tx.rows(query.with_for_update(skip_locked=True))]
    return clear(tx, ids, limit) if ids else 0
