"""Turns of sessions, over either database."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import Forbidden, Invalid, NotFound
from service.history import message_id
from service.sessions import Sessions
from service.store import runs as run_rows
from service.store import session_expiry, users
from service.store import sessions as rows
from service.store.database import Database, Transaction
from service.store.schema import messages, metadata
from service.types import Caller, Run, RunRequest, RunStatus, new_id, now_ms
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]

ADA = Caller("usr_ada", "ada", "user")
BOB = Caller("usr_bob", "bob", "user")
OPERATOR = Caller("usr_eve", "eve", "operator")


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    database = Database(url)
    metadata.create_all(database.engine)
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
        sessions.change(session_id, {"expires_at": now_ms() - 1 - session_expiry.GRACE_MS})
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


def queued_run(session_id: str, question: str, **more: Any) -> Run:
    return a_run(session_id, question, door="task", status=RunStatus.QUEUED, attempt=0, **more)


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


# --- branches ---------------------------------------------------------------------------------------


def talk(sessions: Sessions, db: Database, session_id: str, question: str, answer: str, **more: Any) -> Run:
    run = a_run(session_id, question, **more)
    assert start(sessions, db, run)
    end(sessions, db, run, answer)
    return run


def told_to(sessions: Sessions, db: Database, session_id: str, **more: Any) -> list[str]:
    """What a turn begun now would be told of its session; the turn fails and is not told again."""
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
        tx.execute(sa.insert(messages), said)
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


def test_request_of_a_newer_version_is_read_without_unknown_fields(sessions: Sessions, db: Database) -> None:
    run = a_run(None)
    start(sessions, db, run)
    later = {"agent": "assistant", "messages": [{"role": "user", "content": "Q"}], "unheard_of": 1}
    db.transact(lambda tx: tx.execute(sa.update(run_rows.runs).values(request=later)))
    found = db.query(lambda tx: run_rows.get(tx, run.id))
    assert found is not None and found.request.question == "Q"


def test_request_is_stored_without_fields_of_the_turn(sessions: Sessions, db: Database) -> None:
    run = a_run(begin(sessions, db), on_conflict="queue")
    start(sessions, db, run)
    kept = db.query(lambda tx: tx.row(sa.select(run_rows.runs.c.request)))
    assert kept is not None and not {"on_conflict", "parent_message_id"} & set(kept["request"])


# --- search -----------------------------------------------------------------------------------------


def search(
    sessions: Sessions, text: str, limit: int = 9, before: str | None = None, **more: Any
) -> list[str]:
    caller = more.pop("caller", ADA)
    found, _ = sessions.page(caller, text, all_users=more.pop("all_users", False), limit=limit, before=before)
    return [row["title"] for row in found]


def test_titles_are_searched_in_any_case_and_script(sessions: Sessions, db: Database) -> None:
    for title in ("Straße 100% ÄRGER", "ärger_im Büro", "Other", "ÅNGSTRÖM"):
        row = sessions.new(ADA, "assistant", title, None)
        db.transact(lambda tx, row=row: sessions.create(tx, row))  # type: ignore[misc]
    assert search(sessions, "ärger") == ["ärger_im Büro", "Straße 100% ÄRGER"]
    assert search(sessions, "STRASSE") == search(sessions, "0%") == ["Straße 100% ÄRGER"]
    assert search(sessions, "_") == search(sessions, "r_i") == ["ärger_im Büro"]
    assert search(sessions, "a\u030angstro\u0308m") == ["ÅNGSTRÖM"]
    assert search(sessions, "%%") == search(sessions, "ärger", caller=BOB) == []
    assert search(sessions, "ärger", limit=1) == ["ärger_im Büro"]
    assert search(sessions, "other", caller=OPERATOR, all_users=True) == ["Other"]
    with pytest.raises(Forbidden):
        search(sessions, "x", all_users=True)


def test_a_search_stops_somewhere_and_goes_on_there(
    sessions: Sessions, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = []
    for title in ("wanted", "b", "c", "d", "e"):
        row = sessions.new(ADA, "assistant", title, None)
        db.transact(lambda tx, row=row: sessions.create(tx, row))  # type: ignore[misc]
        ids.append(row["id"])
    monkeypatch.setattr(rows, "SEARCH_PAGE", 2)
    monkeypatch.setattr(rows, "MOST", 4)
    assert sessions.page(ADA, "wanted", all_users=False, limit=3, before=None) == ([], ids[1])
    found, broke_off = sessions.page(ADA, "wanted", all_users=False, limit=3, before=ids[1])
    assert ([row["id"] for row in found], broke_off) == (ids[:1], None)
