"""Sessions over either database, and turns begun and ended by hand."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from service.ids import new_id
from service.sessions import Sessions
from service.store import runs as run_rows
from service.store import users
from service.store.database import Database
from service.types import Caller, Run, RunRequest, RunStatus, now_ms
from tests.tables import create_tables
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
ADA = Caller("usr_ada", "ada", "user")
BOB = Caller("usr_bob", "bob", "user")
OPERATOR = Caller("usr_eve", "eve", "operator")


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    database = Database(url)
    create_tables(database.engine)
    for caller in (ADA, BOB, OPERATOR):
        row = {"id": caller.user_id, "username": caller.username, "password_hash": "", "role": caller.role}
        database.transact(lambda tx, row=row: users.insert(tx, {**row, "disabled": False, "created_at": 0}))  # type: ignore[misc]
    yield database
    database.close()


@pytest.fixture
def sessions(db: Database) -> Sessions:
    return Sessions(db, ttl_days=1, history_tokens=1_000)


def begin(sessions: Sessions, db: Database, agent: str = "assistant") -> str:
    row = sessions.new(ADA, agent, "", None)
    db.transact(lambda tx: sessions.create(tx, row))
    return str(row["id"])


def a_run(session_id: str | None, question: str = "Why?", **more: Any) -> Run:
    asked = {name: more.pop(name) for name in ("parent_message_id", "on_conflict") if name in more}
    said = ({"role": "user", "content": question},)
    request = RunRequest("assistant", said, session_id=session_id, **asked)
    values = {
        "id": new_id("run"),
        "user_id": ADA.user_id,
        "agent": "assistant",
        "door": "invoke",
        "attempt": 1,
    }
    return Run(**{**values, "agent_version": "1", "request": request, **more})


def start(sessions: Sessions, db: Database, run: Run) -> bool:
    def work(tx: Any) -> bool:
        run_rows.insert(tx, run, worker_id=None)
        return sessions.begin(tx, run)

    return db.transact(work)


def end(
    sessions: Sessions,
    db: Database,
    run: Run,
    answer: str | None = "Because.",
    times: int = 1,
    told: str = "",
    summary: tuple[int, str] | None = None,
) -> None:
    """Without an answer the run has failed, after it told so much."""
    run.status = RunStatus.SUCCEEDED if answer is not None else RunStatus.FAILED
    run.finished_at = now_ms()
    run.result = {"output": told if answer is None else answer}
    run.error = {"code": "model_timeout"} if answer is None else None

    def work(tx: Any) -> None:
        assert run_rows.finish(tx, run, 1)
        sessions.end(tx, run, summary)

    for _ in range(times):
        db.transact(work)


def texts(sessions: Sessions, session_id: str) -> list[tuple[int, str, str]]:
    found = sessions.messages(session_id, limit=100, before=None)
    return [(row["seq"], row["role"], row["content"]) for row in reversed(found)]


def queued_run(session_id: str, question: str, **more: Any) -> Run:
    return a_run(session_id, question, door="task", status=RunStatus.QUEUED, attempt=0, **more)
