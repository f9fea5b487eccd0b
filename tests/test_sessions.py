"""Turns and history of sessions, over a real SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service import sessions
from service.errors import Forbidden, Invalid, NotFound
from service.sessions import Sessions, alternating, plan
from service.store import runs as run_rows
from service.store import sessions as rows
from service.store import users
from service.store.base import Database
from service.store.schema import metadata
from service.types import Answer, Caller, Run, RunRequest, RunStatus, new_id, now_ms

ADA = Caller("usr_ada", "ada", "user")
BOB = Caller("usr_bob", "bob", "user")
OPERATOR = Caller("usr_eve", "eve", "operator")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/test.db")
    metadata.create_all(database.engine)
    for caller in (ADA, BOB, OPERATOR):
        row = {"id": caller.user_id, "username": caller.username, "password_hash": "", "role": caller.role}
        database.transact(lambda tx, row=row: users.insert(tx, {**row, "disabled": False, "created_at": 0}))  # type: ignore[misc]
    yield database
    database.close()


@pytest.fixture
def keeper(db: Database) -> Sessions:
    return Sessions(db, ttl_days=1, history_tokens=1_000)


def begin(keeper: Sessions, db: Database, agent: str = "assistant") -> str:
    row = keeper.new(ADA, agent, "", None)
    db.transact(lambda tx: keeper.create(tx, row))
    return str(row["id"])


def a_run(session_id: str | None, question: str = "Why?", **more: Any) -> Run:
    request = RunRequest("assistant", ({"role": "user", "content": question},), session_id=session_id)
    values = {
        "id": new_id("run"),
        "user_id": ADA.user_id,
        "agent": "assistant",
        "door": "invoke",
        "attempt": 1,
    }
    return Run(**{**values, "agent_version": "1", "request": request, **more})


def start(keeper: Sessions, db: Database, run: Run) -> bool:
    def work(tx: Any) -> bool:
        run_rows.insert(tx, run, worker_id=None)
        return keeper.begin(tx, run)

    return db.transact(work)


def end(keeper: Sessions, db: Database, run: Run, answer: str | None = "Because.", times: int = 1) -> None:
    run.status = RunStatus.SUCCEEDED if answer is not None else RunStatus.FAILED
    run.finished_at = now_ms()
    said = Answer(answer, "end_turn", "m") if answer is not None else None

    def work(tx: Any) -> None:
        run_rows.finish(tx, run, 1)
        keeper.ended(tx, run, said)

    for _ in range(times):
        db.transact(work)


def texts(keeper: Sessions, session_id: str) -> list[tuple[int, str, str]]:
    found = keeper.messages(session_id, limit=100, before=None)
    return [(row["seq"], row["role"], row["content"]) for row in reversed(found)]


# --- turns ------------------------------------------------------------------------------------------


def test_a_turn_leaves_its_messages_and_frees_the_session(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    first, second = a_run(session_id), a_run(session_id, "And then?")
    assert start(keeper, db, first)
    assert not start(keeper, db, second)
    end(keeper, db, first)
    assert start(keeper, db, second)
    end(keeper, db, second, "Then this.")
    assert texts(keeper, session_id) == [
        (1, "user", "Why?"), (2, "assistant", "Because."),
        (3, "user", "And then?"), (4, "assistant", "Then this."),
    ]  # fmt: skip
    assert keeper.get(ADA, session_id)["title"] == "Why?"


def test_the_end_of_a_turn_may_be_written_twice(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    run = a_run(session_id)
    start(keeper, db, run)
    end(keeper, db, run, times=2)
    assert len(texts(keeper, session_id)) == 2


def test_a_failed_turn_leaves_no_messages(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    run, other = a_run(session_id), a_run(session_id)
    start(keeper, db, run)
    end(keeper, db, run, None)
    assert texts(keeper, session_id) == []
    assert keeper.get(ADA, session_id)["title"] == ""
    assert start(keeper, db, other)


@pytest.mark.parametrize("how", ["ended", "vanished"])
def test_a_holder_that_is_gone_holds_nothing(keeper: Sessions, db: Database, how: str) -> None:
    session_id = begin(keeper, db)
    lost = a_run(session_id)
    if how == "ended":
        start(keeper, db, lost)
        lost.status, lost.finished_at = RunStatus.FAILED, now_ms()
        db.transact(lambda tx: run_rows.finish(tx, lost, 1))
    else:
        db.transact(lambda tx: rows.take(tx, session_id, lost.id))
    assert start(keeper, db, a_run(session_id))


def test_who_was_queued_first_has_the_next_turn(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    first = a_run(session_id)
    queued = [a_run(session_id, door="task", status=RunStatus.QUEUED, attempt=0) for _ in range(2)]
    queued.sort(key=lambda run: run.id)
    start(keeper, db, first)
    for run in queued:
        assert not start(keeper, db, run)
    assert not db.transact(lambda tx: keeper.resume(tx, queued[0]))
    end(keeper, db, first)
    assert not db.transact(lambda tx: keeper.resume(tx, queued[1]))
    assert db.transact(lambda tx: keeper.resume(tx, queued[0]))
    assert db.transact(lambda tx: keeper.resume(tx, queued[0])), "its own turn does not keep it out"


def test_a_turn_needs_a_session_of_its_own_user_and_agent(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    for wrong, error in (
        (a_run(session_id, user_id=OPERATOR.user_id), NotFound),
        (a_run("ses_none"), NotFound),
        (a_run(session_id, agent="support"), Invalid),
    ):
        with pytest.raises(error):
            start(keeper, db, wrong)


def test_whose_sessions_can_be_seen(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    assert keeper.get(OPERATOR, session_id)["id"] == session_id
    for caller, own in ((BOB, False), (OPERATOR, True)):
        with pytest.raises(NotFound):
            keeper.get(caller, session_id, own=own)
    assert keeper.page(OPERATOR, everyones=False, limit=5, before=None) == []
    assert len(keeper.page(OPERATOR, everyones=True, limit=5, before=None)) == 1
    with pytest.raises(Forbidden):
        keeper.page(ADA, everyones=True, limit=5, before=None)


def test_deleted_with_all_it_holds(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    run = a_run(session_id)
    start(keeper, db, run)
    assert not keeper.delete(session_id), "a turn is under way"
    end(keeper, db, run)
    assert keeper.delete(session_id)
    assert keeper.messages(session_id, limit=5, before=None) == []
    assert db.query(lambda tx: run_rows.get(tx, run.id)) is None


def test_an_expired_session_is_gone_unless_a_turn_is_under_way(keeper: Sessions, db: Database) -> None:
    over, busy, fresh = begin(keeper, db), begin(keeper, db), begin(keeper, db)
    run = a_run(busy)
    start(keeper, db, run)
    for session_id in (over, busy):
        keeper.change(session_id, {"expires_at": now_ms() - 1})
    with pytest.raises(NotFound):
        keeper.get(ADA, over)
    assert db.transact(lambda tx: rows.expire(tx, 10)) == 1
    assert db.transact(lambda tx: rows.expire(tx, 10)) == 0
    end(keeper, db, run)
    assert keeper.get(ADA, busy)["id"] == busy, "its last turn was just now"
    assert keeper.get(ADA, fresh)["id"] == fresh


# --- history ----------------------------------------------------------------------------------------


def said(*sizes: int) -> list[dict[str, Any]]:
    """Turns of a question and an answer, each of half so many tokens."""
    return [
        {
            "seq": 2 * n + part + 1,
            "run_id": f"run_{n}",
            "role": role,
            "content": f"{role} {n}",
            "tokens": size // 2,
        }
        for n, size in enumerate(sizes)
        for part, role in enumerate(("user", "assistant"))
    ]


def test_what_fits_is_told_whole() -> None:
    past = plan("", said(100, 100, 100), 300)
    assert (past.older, len(past.kept)) == ((), 6)


def test_older_turns_are_summarised_and_newer_ones_kept_whole() -> None:
    past = plan("They met.", said(100, 100, 100, 100), 310)
    assert [row["seq"] for row in past.older] == [1, 2, 3, 4, 5, 6]
    assert [row["seq"] for row in past.kept] == [7, 8]
    asked = past.request()[0]["content"]
    assert "They met." in asked and "User: user 0" in asked and "user 3" not in asked
    told = past.summarised("They met, and then talked.").conversation([{"role": "user", "content": "Now?"}])
    assert [message["role"] for message in told] == ["user", "assistant", "user"]
    assert "and then talked" in told[0]["content"][0]["text"]
    assert told[0]["content"][1]["text"] == "user 3"


def test_a_turn_that_passes_the_budget_alone_is_summarised_too() -> None:
    past = plan("", said(100, 5_000), 1_000)
    assert (len(past.older), past.kept) == (4, ())
    told = past.summarised("All.").conversation([{"role": "user", "content": "Now?"}])
    assert [message["role"] for message in told] == ["user"]


def test_a_summary_that_was_not_to_be_had_leaves_the_one_before() -> None:
    past = plan("Before.", said(600, 600), 1_000).summarised("")
    assert past.summary == "Before."


def test_a_summary_cannot_end_its_element() -> None:
    told = plan("x</conversation>y", said(10), 100).conversation([])
    assert told[0]["content"][0]["text"].count("</conversation>") == 1


def test_history_begins_with_the_user_and_alternates() -> None:
    turns = [("assistant", "a"), ("user", "b"), ("user", "c"), ("assistant", "d")]
    told = alternating({"role": role, "content": text} for role, text in turns)
    assert [message["role"] for message in told] == ["user", "assistant"]
    assert [block["text"] for block in told[0]["content"]] == ["b", "c"]


def test_an_empty_answer_is_not_a_message() -> None:
    asked = ({"role": "user", "content": "Why?"},)
    assert len(sessions.turn_of(asked, Answer(" ", "max_tokens", "m"))) == 1


def test_a_title_is_one_short_line() -> None:
    assert sessions.title_of("What\n is  this?") == "What is this?"
    assert sessions.title_of("word " * 40).endswith("word …")


def test_the_summary_is_kept_with_the_turn(keeper: Sessions, db: Database) -> None:
    session_id = begin(keeper, db)
    for n in range(3):
        run = a_run(session_id, f"{n} " + "x" * 1_600)
        start(keeper, db, run)
        end(keeper, db, run)
    run = a_run(session_id)
    start(keeper, db, run)
    past = keeper.past(run, None)
    assert past.older
    run.summary = (past.older[-1]["seq"], "Lots of x.")
    end(keeper, db, run)
    after = a_run(session_id)
    start(keeper, db, after)
    again = keeper.past(after, None)
    assert (again.summary, again.older) == ("Lots of x.", ())
    assert [row["seq"] for row in again.kept] == [row["seq"] for row in past.kept] + [7, 8]
