"""Branches of a session: parent messages, the summary of each branch, rows of older versions; over either database."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Invalid
from service.history import message_id
from service.sessions import Sessions
from service.store import runs as run_rows
from service.store import sessions as rows
from service.store.database import Database
from service.store.schema import messages
from service.types import Run, RunStatus, now_ms
from tests.session_turns import a_run, begin, db, end, queued_run, sessions, start, texts
from tests.usage.conftest import postgres_url, url

__all__ = ["db", "postgres_url", "sessions", "url"]


def talk(sessions: Sessions, db: Database, session_id: str, question: str, answer: str, **more: Any) -> Run:
    run = a_run(session_id, question, **more)
    assert start(sessions, db, run)
    end(sessions, db, run, answer)
    return run


def told_to(sessions: Sessions, db: Database, session_id: str, **more: Any) -> list[str]:
    """Return the history a turn begun now would get; that turn fails and leaves none."""
    run = a_run(session_id, "?", **more)
    assert start(sessions, db, run)
    told = [row["content"] for row in sessions.history(run, None).recent]
    run.status, run.finished_at, run.result = RunStatus.FAILED, now_ms(), {"output": ""}
    run.error = {"code": "model_refused"}
    db.transact(lambda tx: run_rows.finish(tx, run, 1))
    db.transact(lambda tx: tx.execute(sa.update(rows.sessions).values(busy_run_id=None)))
    return told


def test_turn_branches_from_its_parent_message(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    talk(sessions, db, session_id, "Q1", "A1")
    talk(sessions, db, session_id, "Q2", "A2")
    talk(sessions, db, session_id, "Q2b", "A2b", parent_message_id=message_id(session_id, 2))
    assert told_to(sessions, db, session_id) == ["Q1", "A1", "Q2b", "A2b"], "the newest branch goes on"
    assert told_to(sessions, db, session_id, parent_message_id=message_id(session_id, 4)) == [
        "Q1",
        "A1",
        "Q2",
        "A2",
    ]
    assert told_to(sessions, db, session_id, parent_message_id="") == []
    talk(sessions, db, session_id, "Anew", "Fine", parent_message_id="")
    assert told_to(sessions, db, session_id) == ["Anew", "Fine"]


@pytest.mark.parametrize("seq", [0, 3, 9])
def test_a_parent_that_is_no_message_of_the_session_is_refused(
    sessions: Sessions, db: Database, seq: int
) -> None:
    session_id, other = begin(sessions, db), begin(sessions, db)
    for each in (session_id, other):
        talk(sessions, db, each, "Q", "A")
    for wrong in (message_id(session_id, seq), message_id(other, 1)):
        with pytest.raises(Invalid) as refused:
            start(sessions, db, a_run(session_id, parent_message_id=wrong))
        assert refused.value.errors[0]["pointer"] == "/parent_message_id"


def test_queued_turn_continues_the_newest_branch_at_its_start(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    talk(sessions, db, session_id, "Q1", "A1")
    first = a_run(session_id, "Q2")
    start(sessions, db, first)
    queued = [
        queued_run(session_id, "Q3"),
        queued_run(session_id, "Q4", parent_message_id=message_id(session_id, 2)),
    ]
    for run in queued:
        assert not start(sessions, db, run)
    end(sessions, db, first, "A2")
    for run, before in zip(queued, (["Q1", "A1", "Q2", "A2"], ["Q1", "A1"]), strict=True):
        assert db.transact(lambda tx, run=run: run_rows.claim(tx, run.id, "wrk")), "it is in the queue"  # type: ignore[misc]
        taken = db.query(lambda tx, run=run: run_rows.get(tx, run.id))  # type: ignore[misc]
        assert taken is not None and db.transact(lambda tx, run=taken: sessions.resume(tx, run))  # type: ignore[misc]
        assert [row["content"] for row in sessions.history(taken, None).recent] == before
        end(sessions, db, taken, "A")


def test_the_summary_serves_only_its_own_branch(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    for n in range(4):
        talk(sessions, db, session_id, f"Q{n}", f"A{n}")
    run = a_run(session_id, "Q4")
    start(sessions, db, run)
    end(sessions, db, run, "A4", summary=(6, "Three turns."))
    after = a_run(session_id)
    start(sessions, db, after)
    assert (sessions.history(after, None).summary, len(sessions.history(after, None).recent)) == (
        "Three turns.",
        4,
    )
    end(sessions, db, after, None)
    for parent, summary, kept in (
        (6, "Three turns.", []),
        (2, "", ["Q0", "A0"]),
        (5, "", ["Q0", "A0", "Q1", "A1", "Q2"]),
    ):
        run = a_run(session_id, parent_message_id=message_id(session_id, parent))
        start(sessions, db, run)
        past = sessions.history(run, None)
        assert (past.summary, [row["content"] for row in past.recent]) == (summary, kept)
        end(sessions, db, run, None)


def test_refused_turn_is_left_out_of_the_prompt(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    talk(sessions, db, session_id, "Q1", "A1")
    run = a_run(session_id, "Something bad")
    start(sessions, db, run)
    run.status, run.finished_at, run.result = RunStatus.FAILED, now_ms(), {"output": "I would"}
    run.error = {"code": "model_refused"}

    def work(tx: Any) -> None:
        run_rows.finish(tx, run, 1)
        sessions.end(tx, run)

    db.transact(work)
    assert [text for _, _, text in texts(sessions, session_id)] == ["Q1", "A1", "Something bad", "I would"]
    assert told_to(sessions, db, session_id) == ["Q1", "A1"]


def test_rows_of_an_older_version_are_one_conversation(sessions: Sessions, db: Database) -> None:
    """Its runs and messages know nothing of branches, also those it writes while this version runs beside it."""
    session_id = begin(sessions, db)
    talk(sessions, db, session_id, "Q1", "A1")
    old = a_run(session_id, "Q2")
    start(sessions, db, old)
    plain = {"session_id": session_id, "run_id": old.id, "tokens": 4, "created_at": 1}
    said = [
        {**plain, "seq": 3, "role": "user", "content": "Q2"},
        {**plain, "seq": 4, "role": "assistant", "content": "A2"},
    ]

    def written_by_older_code(tx: Any) -> None:
        tx.execute(sa.insert(messages), [tx.sealed(messages, row, old.user_id) for row in said])
        tx.execute(sa.update(rows.sessions).values(busy_run_id=None))

    db.transact(written_by_older_code)
    old.status, old.finished_at = RunStatus.SUCCEEDED, now_ms()
    db.transact(lambda tx: run_rows.finish(tx, old, 1))
    assert told_to(sessions, db, session_id) == ["Q1", "A1", "Q2", "A2"]
    taken_by_older_code = a_run(session_id, "Q3")

    def take(tx: Any) -> None:
        run_rows.insert(tx, taken_by_older_code, worker_id=None)
        tx.execute(sa.update(rows.sessions).values(busy_run_id=taken_by_older_code.id))

    db.transact(take)
    kept = sessions.history(taken_by_older_code, None).recent
    assert [row["content"] for row in kept] == ["Q1", "A1", "Q2", "A2"]
    end(sessions, db, taken_by_older_code, "A3")
    assert told_to(sessions, db, session_id)[-2:] == ["Q3", "A3"]
