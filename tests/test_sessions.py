"""Turns of sessions, over either database."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Forbidden, Invalid, NotFound
from service.sessions import Sessions
from service.store import runs as run_rows
from service.store import session_expiry
from service.store import sessions as rows
from service.store.database import Database, Transaction
from service.types import Run, RunStatus, now_ms
from tests.session_turns import ADA, BOB, OPERATOR, a_run, begin, db, end, queued_run, sessions, start, texts
from tests.usage.conftest import postgres_url, url

__all__ = ["db", "postgres_url", "sessions", "url"]


def test_a_turn_does_not_begin_in_a_session_that_is_deleted_meanwhile(
    sessions: Sessions, db: Database
) -> None:
    """Its run would outlive the conversation. The turn has found the session, and waits for the deletion's lock."""
    session_id, run = begin(sessions, db), None
    with ThreadPoolExecutor(1) as pool:

        def work(tx: Transaction) -> Future[bool]:
            nonlocal run
            assert not rows.unfinished(tx, session_id)
            tx.row(sa.select(rows.sessions.c.id).where(rows.sessions.c.id == session_id).with_for_update())
            run = a_run(session_id)
            started = pool.submit(start, sessions, db, run)
            wait([started], timeout=1)
            assert session_expiry.close(tx, session_id)
            return started

        started = db.transact(work)
        with pytest.raises(NotFound):
            started.result()
    assert run is not None
    found = run.id
    assert db.query(lambda tx: run_rows.get(tx, found)) is None


# --- turns ------------------------------------------------------------------------------------------


def test_a_turn_leaves_its_messages_and_frees_the_session(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    first, second = a_run(session_id), a_run(session_id, "And then?")
    assert start(sessions, db, first)
    assert not start(sessions, db, second)
    end(sessions, db, first)
    assert start(sessions, db, second)
    end(sessions, db, second, "Then this.")
    assert texts(sessions, session_id) == [
        (1, "user", "Why?"), (2, "assistant", "Because."),
        (3, "user", "And then?"), (4, "assistant", "Then this."),
    ]  # fmt: skip
    assert sessions.get(ADA, session_id)["title"] == "Why?"


def test_the_end_of_a_turn_may_be_written_twice(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    run = a_run(session_id)
    start(sessions, db, run)
    end(sessions, db, run, times=2)
    assert len(texts(sessions, session_id)) == 2


def test_failed_turn_is_stored_with_its_partial_answer(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    for told in ("Half of", " \n"):
        run = a_run(session_id)
        assert start(sessions, db, run)
        end(sessions, db, run, None, told=told)
    assert texts(sessions, session_id) == [
        (1, "user", "Why?"), (2, "assistant", "Half of"), (3, "user", "Why?"),
    ]  # fmt: skip
    found = sessions.messages(session_id, limit=9, before=None)
    assert {(row["status"], row["error_code"]) for row in found} == {("failed", "model_timeout")}
    assert sessions.get(ADA, session_id)["title"] == "Why?"
    after = a_run(session_id, "And now?")
    assert start(sessions, db, after)
    assert [row["content"] for row in sessions.history(after, None).recent] == ["Why?", "Half of", "Why?"]


@pytest.mark.parametrize("how", ["ended", "vanished"])
def test_a_holder_that_is_gone_holds_nothing(sessions: Sessions, db: Database, how: str) -> None:
    session_id = begin(sessions, db)
    lost = a_run(session_id)
    if how == "ended":
        start(sessions, db, lost)
        lost.status, lost.finished_at = RunStatus.FAILED, now_ms()
        db.transact(lambda tx: run_rows.finish(tx, lost, 1))
    else:
        db.transact(lambda tx: rows.take(tx, session_id, lost.id))
    assert start(sessions, db, a_run(session_id))


def test_queued_turns_start_in_order(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    first = a_run(session_id)
    queued = [a_run(session_id, door="task", status=RunStatus.QUEUED, attempt=0) for _ in range(2)]
    queued.sort(key=lambda run: run.id)
    start(sessions, db, first)
    for run in queued:
        assert not start(sessions, db, run)
    assert not db.transact(lambda tx: sessions.resume(tx, queued[0]))
    end(sessions, db, first)
    assert not db.transact(lambda tx: sessions.resume(tx, queued[1]))
    assert db.transact(lambda tx: sessions.resume(tx, queued[0]))
    assert db.transact(lambda tx: sessions.resume(tx, queued[0])), "its own turn does not keep it out"


def test_a_turn_needs_a_session_of_its_own_user_and_agent(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    for wrong, error in (
        (a_run(session_id, user_id=OPERATOR.user_id), NotFound),
        (a_run("ses_none"), NotFound),
        (a_run(session_id, agent="support"), Invalid),
    ):
        with pytest.raises(error):
            start(sessions, db, wrong)


def test_whose_sessions_can_be_seen(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    assert sessions.get(OPERATOR, session_id)["id"] == session_id
    for caller, own in ((BOB, False), (OPERATOR, True)):
        with pytest.raises(NotFound):
            sessions.get(caller, session_id, own=own)
    assert sessions.page(OPERATOR, None, all_users=False, limit=5, before=None) == ([], None)
    assert len(sessions.page(OPERATOR, None, all_users=True, limit=5, before=None)[0]) == 1
    with pytest.raises(Forbidden):
        sessions.page(ADA, None, all_users=True, limit=5, before=None)


def test_delete_removes_messages_and_runs(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    run = a_run(session_id)
    start(sessions, db, run)
    assert not sessions.delete(session_id), "a turn is under way"
    end(sessions, db, run)
    assert sessions.delete(session_id)
    assert sessions.messages(session_id, limit=5, before=None) == []
    assert db.query(lambda tx: run_rows.get(tx, run.id)) is None


def test_an_expired_session_is_gone_unless_a_turn_is_under_way(sessions: Sessions, db: Database) -> None:
    over, busy, fresh = begin(sessions, db), begin(sessions, db), begin(sessions, db)
    run = a_run(busy)
    start(sessions, db, run)
    for session_id in (over, busy):
        long_ago = {"expires_at": now_ms() - 1 - session_expiry.GRACE_MS}
        sessions.change({"id": session_id, "user_id": ADA.user_id}, long_ago)
    with pytest.raises(NotFound):
        sessions.get(ADA, over)
    assert db.transact(lambda tx: session_expiry.expire(tx, 10)) == 1
    assert db.transact(lambda tx: session_expiry.expire(tx, 10)) == 0
    end(sessions, db, run)
    assert sessions.get(ADA, busy)["id"] == busy, "its last turn was just now"
    assert sessions.get(ADA, fresh)["id"] == fresh


def test_the_summary_is_kept_with_the_turn(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    for n in range(3):
        run = a_run(session_id, f"{n} " + "x" * 1_600)
        start(sessions, db, run)
        end(sessions, db, run)
    run = a_run(session_id)
    start(sessions, db, run)
    past = sessions.history(run, None)
    assert past.older
    end(sessions, db, run, summary=(past.older[-1]["seq"], "Lots of x."))
    after = a_run(session_id)
    start(sessions, db, after)
    again = sessions.history(after, None)
    assert (again.summary, again.older) == ("Lots of x.", ())
    assert [row["seq"] for row in again.recent] == [row["seq"] for row in past.recent] + [7, 8]


# --- turns that were never theirs to take -----------------------------------------------------------


def cancel_queued(sessions: Sessions, db: Database, run: Run, times: int = 1) -> None:
    run.status, run.finished_at, run.result = RunStatus.CANCELLED, now_ms(), {"output": ""}
    run.error = {"code": "run_cancelled"}

    def work(tx: Any) -> None:
        run_rows.close(tx, run, [RunStatus.QUEUED])
        sessions.end(tx, run)

    for _ in range(times):
        db.transact(work)


def test_turn_cancelled_in_the_queue_is_stored(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    first, queued = a_run(session_id), queued_run(session_id, "Next?")
    assert start(sessions, db, first) and not start(sessions, db, queued)
    cancel_queued(sessions, db, queued, times=2)
    assert texts(sessions, session_id) == [(1, "user", "Next?")]
    assert not start(sessions, db, a_run(session_id)), "it did not free the session"
    assert sessions.history(first, None).recent == (), "it is no part of the turn under way"
    end(sessions, db, first)
    after = a_run(session_id, "After?")
    assert start(sessions, db, after)
    assert [row["content"] for row in sessions.history(after, None).recent] == ["Why?", "Because."]
    assert [row["status"] for row in sessions.messages(session_id, limit=9, before=None)][-1] == "cancelled"


def test_nothing_is_added_to_a_session_that_is_gone(sessions: Sessions, db: Database) -> None:
    session_id = begin(sessions, db)
    queued = queued_run(session_id, "Next?")
    start(sessions, db, queued)
    db.transact(lambda tx: tx.execute(sa.delete(rows.sessions)))
    cancel_queued(sessions, db, queued)
    assert texts(sessions, session_id) == []


def test_request_of_a_newer_version_is_read_without_unknown_fields(sessions: Sessions, db: Database) -> None:
    run = a_run(None)
    start(sessions, db, run)
    later = {"agent": "assistant", "messages": [{"role": "user", "content": "Q"}], "unheard_of": 1}
    db.transact(
        lambda tx: tx.execute(
            sa.update(run_rows.runs).values(tx.sealed(run_rows.runs, {"request": later}, ADA.user_id))
        )
    )
    found = db.query(lambda tx: run_rows.get(tx, run.id))
    assert found is not None and found.request.question == "Q"


def test_request_is_stored_without_fields_of_the_turn(sessions: Sessions, db: Database) -> None:
    run = a_run(begin(sessions, db), on_conflict="queue")
    start(sessions, db, run)
    kept = db.query(lambda tx: tx.row(sa.select(run_rows.runs.c.request)))
    assert kept is not None and not {"on_conflict", "parent_message_id"} & set(kept["request"])
