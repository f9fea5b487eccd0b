"""Sessions table. `busy_run_id` is the run that executes the session's current turn."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

from service.errors import TooMany
from service.store import messages, scoped
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import runs, sessions
from service.store.statement import Statement
from service.store.visibility import Visibility, in_workspace
from service.text import exact_json
from service.text.search_words import normalise
from service.types import Run, RunStatus, now_ms

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
    stored = {**row, "metadata": exact_json.to_stored(row["metadata"])}
    tx.execute(InsertOnce(sessions), tx.sealed(sessions, stored, row["user_id"]))


def get(tx: Transaction, session_id: str, visible: Visibility) -> Row | None:
    """Find one session that is visible and has not expired."""
    row = tx.row(_BY_ID, {"id": session_id, "now": now_ms()})
    return row if row is not None and visible.covers(row) else None


def recent(tx: Transaction, *, limit: int, before: str | None, visible: Visibility) -> list[Row]:
    """List visible sessions, newest first, without metadata and summary."""
    query = sa.select(*_LISTED).where(sessions.c.expires_at > now_ms())
    query = query.where(*in_workspace(sessions, visible.workspace_id))
    if visible.user_id is not None:
        query = query.where(sessions.c.user_id == visible.user_id)
    if before is not None:
        query = query.where(sessions.c.id < before)
    if visible.scopes:
        return scoped.newest(tx, sessions, query, limit=limit, visible=visible)
    page = query.order_by(sessions.c.id.desc()).limit(limit)
    return tx.rows(page)


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


def update(tx: Transaction, session_id: str, user_id: str, changes: dict[str, Any]) -> None:
    """Change columns of a user's session."""
    if "metadata" in changes:
        changes = {**changes, "metadata": exact_json.to_stored(changes["metadata"])}
    sealed = tx.sealed(sessions, changes, user_id)
    tx.execute(sa.update(sessions).where(sessions.c.id == session_id).values(sealed))


# --- turns ------------------------------------------------------------------------------------------

_SESSION: sa.BindParameter[str] = sa.bindparam("session")
_RUN: sa.BindParameter[str] = sa.bindparam("run")
_LOCK = Statement(
    sa.select(sessions.c.user_id, sessions.c.agent, sessions.c.busy_run_id, _ALIVE.label("alive"))
    .where(sessions.c.id == _SESSION)
    .with_for_update()
)
_QUEUED = sa.select(runs.c.id).where(
    runs.c.session_id == _SESSION, runs.c.finished_at.is_(None), runs.c.status == RunStatus.QUEUED
)
_HOLDER = sa.select(runs.c.id).where(runs.c.id == sessions.c.busy_run_id, runs.c.finished_at.is_(None))
_FREE = sa.or_(sessions.c.busy_run_id.is_(None), ~sa.exists(_HOLDER))
_TAKE_AHEAD = sa.update(sessions).where(sessions.c.id == _SESSION, _FREE).values(busy_run_id=_RUN)
_TAKE = _TAKE_AHEAD.where(~sa.exists(_QUEUED.where(runs.c.id < _RUN)))
_TAKES = {False: Statement(_TAKE), True: Statement(_TAKE_AHEAD)}  # by `ahead`
_HELD = sa.and_(sessions.c.id == _SESSION, sessions.c.busy_run_id == _RUN)
_FIRST_QUEUED = _QUEUED.where(sa.exists().where(_HELD)).order_by(runs.c.id).limit(1)
_WAKE = Statement(
    sa.update(runs)
    .where(runs.c.id.in_(_FIRST_QUEUED.with_for_update()))
    .values(wake_at=sa.bindparam("now"), in_line=runs.c.priority.is_not(None))
)


def lock(tx: Transaction, session_id: str, usual: Row | None = None) -> Row | None:
    """Lock a session, to take or end a turn; return its `user_id`, `agent`, `busy_run_id`, and whether it is `alive`.

    A statement of its own: after any wait for the lock, PostgreSQL reads in the next ones what is there by then.
    """
    return tx.row(_LOCK, {"session": session_id, "now": now_ms()}, expect=usual)


def take(
    tx: Transaction, session_id: str, run_id: str, parent: int | None = None, *, ahead: bool = False
) -> bool:
    """Acquire the session for this run. False: another unfinished run has it, or was queued for it earlier.

    The turn continues from message `parent`; None: the last one. `ahead`: also before runs queued earlier. A holder
    that has ended or vanished does not count. The caller holds a lock on the session's row.
    """
    if tx.execute(_TAKES[ahead], {"session": session_id, "run": run_id}, expect=1) != 1:
        return False
    messages.set_parent(tx, session_id, run_id, parent)
    return True


def release(tx: Transaction, run: Run, changes: dict[str, Any], title: str) -> bool:
    """End the turn of a run: apply `changes`, set `title` if the session has none, put the next queued run in line.

    False: this run does not hold the session.
    """
    # Locks a run before the session: see "Locks" in docs/architecture.md. Two that cancel runs of one queue would wait
    # for each other, so only the holder's end wakes the next.
    given = {"session": run.request.session_id, "run": run.id}
    tx.send(_WAKE, {**given, "now": now_ms()})
    changed = {f"v_{name}": value for name, value in tx.sealed(sessions, changes, run.user_id).items()}
    named = tx.sealed(sessions, {"title": title}, run.user_id)["title"]
    return tx.execute(_release(*changes), {**given, **changed, "named": named}, expect=1) == 1


@cache
def _release(*names: str) -> Statement:
    """Update of these columns, and of the title, while the run holds the session."""
    table = sessions.c
    values: dict[Any, Any] = {
        table[name]: sa.bindparam(f"v_{name}", type_=table[name].type) for name in names
    }
    title = sa.case((table.title == "", sa.bindparam("named", type_=table.title.type)), else_=table.title)
    return Statement(
        sa.update(sessions).where(_HELD).values({**values, table.title: title, table.busy_run_id: None})
    )


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
