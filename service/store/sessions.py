"""Sessions table. `busy_run_id` is the run that executes the session's current turn."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.errors import NotFound, TooMany
from service.store import messages, scoped
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import runs, sessions
from service.store.transaction import PLANNED_ANEW
from service.store.visibility import Visibility
from service.text import exact_json
from service.text.search_words import normalise
from service.types import RunStatus, now_ms

MAX_SESSIONS = 10_000  # sessions of one user; expired ones count until they are deleted, minutes later
SEARCH_PAGE = 1_000  # sessions read at once to search their titles
_ALIVE = sessions.c.expires_at > sa.bindparam("now")
_BY_ID = sa.select(sessions).where(sessions.c.id == sa.bindparam("id"), _ALIVE)
# Lists leave out metadata and summary, which may be large.
_LISTED = [column for column in sessions.c if column.key not in ("metadata", "summary")]


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a session. Raises `TooMany` where its user has `MAX_SESSIONS`; concurrent inserts may pass by a few."""
    others = sessions.c.user_id == row["user_id"], sessions.c.id != row["id"]
    if tx.row(
        sa.select(sessions.c.id).where(*others).order_by(sessions.c.id).offset(MAX_SESSIONS - 1).limit(1)
    ):
        raise TooMany(f"You have {MAX_SESSIONS} sessions: delete one first.")
    tx.execute(InsertOnce(sessions), {**row, "metadata": exact_json.to_stored(row["metadata"])})


def get(tx: Transaction, session_id: str, visible: Visibility) -> Row | None:
    """Find one session that is visible and has not expired."""
    row = tx.row(_BY_ID, {"id": session_id, "now": now_ms()})
    return row if row is not None and visible.covers(row["user_id"], row["agent"]) else None


def summary_of(tx: Transaction, session_id: str, run_id: str) -> Row | None:
    """Read `summary`, `summary_upto` and the run's `parent_seq`, also of an expired session."""
    parent_seq = sa.select(runs.c.parent_seq).where(runs.c.id == run_id).scalar_subquery()
    query = sa.select(sessions.c.summary, sessions.c.summary_upto, parent_seq.label("parent_seq"))
    return tx.row(query.where(sessions.c.id == session_id))


def recent(tx: Transaction, *, limit: int, before: str | None, visible: Visibility) -> list[Row]:
    """List visible sessions, newest first, without metadata and summary."""
    query = sa.select(*_LISTED).where(sessions.c.expires_at > now_ms())
    if visible.user_id is not None:
        query = query.where(sessions.c.user_id == visible.user_id)
    if before is not None:
        query = query.where(sessions.c.id < before)
    if visible.scopes:
        return scoped.newest(tx, sessions, query, limit=limit, visible=visible)
    page = query.order_by(sessions.c.id.desc()).limit(limit)
    return tx.rows(page.execution_options(**PLANNED_ANEW))


def by_title(
    tx: Transaction, text: str, *, limit: int, before: str | None, visible: Visibility
) -> tuple[list[Row], str | None]:
    """Search sessions by title, ignoring case and accents, newest first; return them and the cursor to go on from.

    Reads at most `MAX_SESSIONS` sessions, all that a user may have; the cursor is None unless more remain unread.
    Compared here and not by the database: SQLite folds ASCII only, PostgreSQL by its locale.
    """
    needle = normalise(text).strip()
    found: list[Row] = []
    for _ in range(MAX_SESSIONS // SEARCH_PAGE):
        page = recent(tx, limit=SEARCH_PAGE, before=before, visible=visible)
        found += [row for row in page if needle in normalise(row["title"]).strip()]
        if len(found) >= limit or len(page) < SEARCH_PAGE:
            return found[:limit], None
        before = page[-1]["id"]
    return found, before


def update(tx: Transaction, session_id: str, changes: dict[str, Any]) -> None:
    if "metadata" in changes:
        changes = {**changes, "metadata": exact_json.to_stored(changes["metadata"])}
    tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(changes))


# --- turns ------------------------------------------------------------------------------------------


def take(
    tx: Transaction,
    session_id: str,
    run_id: str,
    parent: int | None = None,
    *,
    ahead: bool = False,
    begins: bool = False,
) -> bool:
    """Acquire the session for this run. False: another unfinished run has it, or was queued for it earlier.

    The turn continues from message `parent`; None: the last one. `ahead`: also before runs queued earlier. A holder
    that has ended or vanished does not count, and a deleted session is not busy. Where the turn `begins`, a deleted or
    expired session raises `NotFound`: its deletion did not see this run, which would outlive the conversation.
    """
    # Locked by a statement of its own: PostgreSQL then reads the holder as it is after any wait.
    query = sa.select(sessions.c.busy_run_id, sessions.c.expires_at).where(sessions.c.id == session_id)
    row = tx.row(query.with_for_update())
    if begins and (row is None or row["expires_at"] <= now_ms()):
        raise NotFound(f"There is no session {session_id}.")
    if row is None or row["busy_run_id"] == run_id:
        return True
    unfinished = sa.select(runs.c.id).where(runs.c.finished_at.is_(None))
    held = sa.exists(unfinished.where(runs.c.id == sessions.c.busy_run_id))
    free = sa.or_(sessions.c.busy_run_id.is_(None), ~held)
    if not ahead:
        queued = (runs.c.session_id == session_id, runs.c.status == RunStatus.QUEUED, runs.c.id < run_id)
        free = sa.and_(free, ~sa.exists(unfinished.where(*queued)))
    statement = sa.update(sessions).where(sessions.c.id == session_id, free).values(busy_run_id=run_id)
    if tx.execute(statement) != 1:
        return False
    messages.set_parent(tx, session_id, run_id, parent)
    return True


def release(tx: Transaction, session_id: str, run_id: str, changes: dict[str, Any], title: str) -> bool:
    """End the turn: apply `changes`, set `title` if the session has none, wake queued runs.

    False: this run does not hold the session.
    """
    # Locks runs before the session, in the order of ids: see "Locks" in docs/architecture.md. Two that cancel runs of
    # one queue would wait for each other, so only the holder's end wakes the others.
    holds = sa.exists().where(sessions.c.id == session_id, sessions.c.busy_run_id == run_id)
    queued = sa.select(runs.c.id).where(
        runs.c.session_id == session_id,
        runs.c.finished_at.is_(None),
        runs.c.status == RunStatus.QUEUED,
        holds,
    )
    locked = queued.order_by(runs.c.id).with_for_update()
    tx.execute(sa.update(runs).where(runs.c.id.in_(locked)).values(wake_at=now_ms()))
    named = sa.case((sessions.c.title == "", title), else_=sessions.c.title)
    statement = sa.update(sessions).where(sessions.c.id == session_id, sessions.c.busy_run_id == run_id)
    return tx.execute(statement.values({**changes, "title": named, "busy_run_id": None})) == 1


def lacks_turn(tx: Transaction, session_id: str, run_id: str) -> bool:
    """Return whether the session exists and has no messages of this run; locks it, so that they can be added."""
    locked = sa.select(sessions.c.id).where(sessions.c.id == session_id).with_for_update()
    return tx.row(locked) is not None and not messages.has_turn(tx, session_id, run_id)


def unfinished(tx: Transaction, session_id: str) -> list[str]:
    query = sa.select(runs.c.id).where(runs.c.session_id == session_id, runs.c.finished_at.is_(None))
    return [row["id"] for row in tx.rows(query)]


def under_way(tx: Transaction, session_id: str) -> list[Row]:
    """List the session's unfinished runs, oldest first: `id`, and `holds` (False: queued for the session)."""
    holds = (sessions.c.busy_run_id == runs.c.id).label("holds")
    query = sa.select(runs.c.id, holds).join(sessions, sessions.c.id == runs.c.session_id)
    query = query.where(runs.c.session_id == session_id, runs.c.finished_at.is_(None))
    return tx.rows(query.order_by(runs.c.id))
