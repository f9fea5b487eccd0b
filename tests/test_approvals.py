"""Approvals: permission to decide about a tool call, and the effect of a decision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from service import approvals
from service.errors import AlreadyDecided, NotFound
from service.store import approvals as rows
from service.store import runs, users
from service.store.approvals import Decision
from service.store.database import Database
from service.types import Caller, Run, RunRequest, RunStatus, now_ms
from tests.tables import create_tables

ADA = Caller("usr_ada", "ada", "user")
BOB = Caller("usr_bob", "bob", "user")
OPERATOR = Caller("usr_eve", "eve", "operator")
YES = Decision("approve", "fine", {"text": "changed"}, "dec_1")
NO = Decision("deny", None, None, "dec_2")


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    """A run of Ada's that waits for two decisions: `apr_1` and `apr_2`."""
    database = Database(f"sqlite:///{tmp_path}/test.db")
    create_tables(database.engine)
    request = RunRequest("clerk", ({"role": "user", "content": "Do it."},))
    run = Run("run_1", ADA.user_id, "clerk", "1", "stream", request, attempt=1)
    user = {"id": ADA.user_id, "username": "ada", "password_hash": "", "role": "user", "disabled": False}
    asked = {"run_id": run.id, "user_id": ADA.user_id, "agent": "clerk", "name": "write", "reason": "policy"}
    questions = [
        {**asked, "id": f"apr_{n}", "call_id": f"call_{n}", "arguments": {"text": "own"}} for n in (1, 2)
    ]
    database.transact(lambda tx: users.insert(tx, {**user, "created_at": now_ms()}))
    database.transact(lambda tx: runs.insert(tx, run, worker_id="wrk"))
    database.transact(lambda tx: runs.suspend(tx, run, 1))
    database.transact(lambda tx: rows.ask(tx, questions))
    yield database
    database.close()


def status(db: Database) -> RunStatus:
    run = db.query(lambda tx: runs.get(tx, "run_1"))
    assert run is not None
    return run.status


def test_the_last_decision_lets_the_run_go_on(db: Database) -> None:
    row, resumes = db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_1", YES))
    assert (row["status"], row["arguments"], row["decided_by"], resumes) == (
        "approved", {"text": "changed"}, "usr_eve", False,
    )  # fmt: skip
    assert status(db) is RunStatus.WAITING_APPROVAL
    row, resumes = db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_2", NO))
    assert (row["status"], row["arguments"], resumes) == ("denied", {"text": "own"}, True)
    assert status(db) is RunStatus.QUEUED


def test_decided_once(db: Database) -> None:
    db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_1", YES))
    with pytest.raises(AlreadyDecided):
        db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_1", NO))
    with pytest.raises(AlreadyDecided):
        db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_1", YES._replace(id="dec_3")))
    row, _ = db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_1", YES))
    assert row["status"] == "approved", "the same transaction, run again after a commit whose answer was lost"


def test_an_approval_of_others_is_not_found(db: Database) -> None:
    assert db.query(lambda tx: approvals.find(tx, ADA, "apr_1"))["id"] == "apr_1"
    for caller, approval in ((BOB, "apr_1"), (OPERATOR, "apr_3")):
        with pytest.raises(NotFound):
            db.transact(lambda tx, c=caller, a=approval: approvals.decide(tx, c, a, YES))  # type: ignore[misc]


def test_a_cancelled_run_asks_no_more(db: Database) -> None:
    db.transact(lambda tx: rows.close(tx, "run_1"))
    with pytest.raises(AlreadyDecided):
        db.transact(lambda tx: approvals.decide(tx, OPERATOR, "apr_1", YES))
    assert db.query(lambda tx: rows.pending(tx, "run_1")) == []
