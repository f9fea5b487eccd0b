"""The end of a run is its own attempt's, whatever the clock says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from service.store import runs, users
from service.store.database import Database
from service.types import Run, RunRequest, RunStatus
from tests.tables import create_tables

ENDED = 1_700_000_000_000


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    with closing(Database(f"sqlite:///{tmp_path}/test.db")) as database:
        create_tables(database.engine)
        row = {"id": "usr_1", "username": "ada", "password_hash": "", "role": "user", "disabled": False}
        database.transact(lambda tx: users.insert(tx, {**row, "created_at": 1}))
        yield database


@pytest.fixture
def run(db: Database) -> Run:
    request = RunRequest("clerk", ({"role": "user", "content": "Hello"},))
    run = Run("run_1", "usr_1", "clerk", "1", "invoke", request, attempt=1)
    db.transact(lambda tx: runs.insert(tx, run, worker_id="wrk"))
    return run


def test_the_last_write_may_run_twice(db: Database, run: Run) -> None:
    run.status, run.finished_at, run.result = RunStatus.SUCCEEDED, ENDED, {"output": "Hi", "tools": ()}
    for _ in range(2):
        assert db.transact(lambda tx: runs.finish(tx, run, 1))


def test_a_run_that_was_cancelled_in_the_same_millisecond_is_not_finished(db: Database, run: Run) -> None:
    db.transact(lambda tx: runs.release(tx, run, 1))
    cancelled = replace(run, status=RunStatus.CANCELLED, finished_at=ENDED, result={"output": ""})
    assert db.transact(lambda tx: runs.close(tx, cancelled, [RunStatus.QUEUED]))
    run.status, run.finished_at, run.result = RunStatus.SUCCEEDED, ENDED, {"output": "Hi"}
    assert not db.transact(lambda tx: runs.finish(tx, run, 1))
