"""Failed runs that release their idempotency key, over a real SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from service.errors import IdempotencyMismatch
from service.runs.idempotency import AlreadyStarted, Key
from service.store import runs, tool_calls, users
from service.store.database import Database
from service.types import Run, RunStatus, now_ms
from tests.runs.house import ADA, ASSISTANT, asked, run_of
from tests.tables import create_tables

KEY = Key(ADA.user_id, "order-1", "as first asked")
AWAY: dict[str, Any] = {"code": "model_unavailable", "retry_after": 10}


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/test.db")
    create_tables(database.engine)
    row = {"id": ADA.user_id, "username": "ada", "password_hash": "", "role": "user", "disabled": False}
    database.transact(lambda tx: users.insert(tx, {**row, "created_at": 0}))
    yield database
    database.close()


def start(db: Database, key: Key = KEY) -> str:
    """The new run under the key. Raises `AlreadyStarted` where there is one."""
    run = run_of(asked("Hello", ASSISTANT))

    def begin(tx: Any) -> None:
        key.start(tx, run.id)
        runs.insert(tx, run, worker_id="wrk")

    db.transact(begin)
    return run.id


def end(db: Database, run_id: str, status: RunStatus, error: dict[str, Any] | None, seconds_ago: int) -> None:
    run = db.query(lambda tx: runs.get(tx, run_id))
    assert isinstance(run, Run)
    run.status, run.error, run.finished_at = status, error, now_ms() - seconds_ago * 1000
    assert db.transact(lambda tx: runs.close(tx, run, [RunStatus.QUEUED, RunStatus.RUNNING]))


@pytest.mark.parametrize(
    ("error", "seconds_ago"),
    [(AWAY, 10), ({"code": "model_error"}, 1), ({"code": "run_timeout"}, 60), ({"code": "model_timeout"}, 2)],
)
def test_a_failure_that_passes_gives_the_key_back(db: Database, error: Any, seconds_ago: int) -> None:
    first = start(db)
    end(db, first, RunStatus.FAILED, error, seconds_ago)
    assert db.query(KEY.started) is None
    second = start(db)
    assert second != first and db.query(KEY.started) == second
    with pytest.raises(AlreadyStarted) as other:
        start(db)
    assert other.value.run_id == second


@pytest.mark.parametrize(
    ("status", "error", "seconds_ago"),
    [
        (RunStatus.FAILED, AWAY, 8),  # its Retry-After is not over
        (RunStatus.FAILED, {"code": "model_error"}, 0),
        (RunStatus.FAILED, {"code": "model_rejected"}, 60),
        (RunStatus.FAILED, {"code": "agent_fault"}, 60),
        (RunStatus.FAILED, {"code": "worker_lost"}, 60),
        (RunStatus.FAILED, {"code": "price_unknown"}, 60),
        (RunStatus.CANCELLED, {"code": "run_cancelled"}, 60),
        (RunStatus.SUCCEEDED, None, 60),
    ],
)
def test_key_stays_with_a_run_of_any_other_end(
    db: Database, status: RunStatus, error: Any, seconds_ago: int
) -> None:
    first = start(db)
    end(db, first, status, error, seconds_ago)
    assert db.query(KEY.started) == first
    with pytest.raises(AlreadyStarted):
        start(db)


def test_key_stays_with_a_running_run(db: Database) -> None:
    first = start(db)
    with pytest.raises(AlreadyStarted) as other:
        start(db)
    assert other.value.run_id == first


def test_key_stays_with_a_failed_run_that_called_a_tool(db: Database) -> None:
    first = start(db)
    run = db.query(lambda tx: runs.get(tx, first))
    assert isinstance(run, Run)
    call = tool_calls.ToolCall("call_1", "send_mail", {})
    db.transact(lambda tx: tool_calls.claim(tx, run, 2, call, None))
    end(db, first, RunStatus.FAILED, AWAY, 60)
    with pytest.raises(AlreadyStarted):
        start(db)


def test_another_body_stays_another_body(db: Database) -> None:
    end(db, start(db), RunStatus.FAILED, AWAY, 60)
    with pytest.raises(IdempotencyMismatch):
        start(db, KEY._replace(fingerprint="as asked later"))


def test_concurrent_retries_start_one_run(db: Database) -> None:
    end(db, start(db), RunStatus.FAILED, AWAY, 60)

    def ask(_: int) -> tuple[bool, str]:
        try:
            return True, start(db)
        except AlreadyStarted as other:
            return False, other.run_id

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(40)))
    assert sum(began for began, _ in found) == 1
    assert len({run_id for _, run_id in found}) == 1
