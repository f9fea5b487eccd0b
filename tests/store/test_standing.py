"""How the service stands, read on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa

from service.ids import new_id
from service.store import schema, standing
from service.store.database import Database
from service.types import NANO, now_ms
from service.usage.caps import window_start
from tests.tables import create_tables

MINUTE = 60_000


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(Database(url)) as database:
        create_tables(database.engine)
        yield database


def add(db: Database, table: sa.Table, **values: Any) -> None:
    db.transact(lambda tx: tx.execute(sa.insert(table).values(**tx.sealed(table, values, "usr_ada"))))


def a_user(db: Database) -> None:
    about = {"username": "ada", "password_hash": "", "role": "user", "created_at": 1}
    add(db, schema.users, id="usr_ada", **about)


def a_run(db: Database, status: str, **values: Any) -> None:
    fixed = {"user_id": "usr_ada", "agent": "support", "agent_version": "1", "door": "task", "cache": "miss"}
    texts = {"request_id": "req", "request": {}}
    add(
        db,
        schema.runs,
        **{"id": new_id("run"), "status": status, "created_at": now_ms(), **fixed, **texts, **values},
    )


def counter(db: Database, scope: str, period: str, committed: int, **values: Any) -> None:
    start = window_start(period, now_ms())
    window = f"{scope}/{period}/{start}"
    about = {"id": f"{window}/0", "window_id": window, "scope": scope, "period": period, "starts_at": start}
    money = {"cap_nano": NANO, "spent_nano": committed, "held_nano": 0, "seq": 1, "warned": 0}
    add(db, schema.counters, **{**about, **money, **values})


def test_an_empty_service_stands_at_zero(db: Database) -> None:
    found = db.query(standing.read)
    none = standing.Queue(0, None)
    assert (found.runs, found.tasks) == ({}, {})
    assert (found.approvals, found.schedules, found.holds) == (none, none, none)
    assert (found.sessions, found.most_tokens, found.held_usd, found.unlinked_seconds) == (0, 0, 0.0, 0.0)
    assert found.processes == {"web": 0, "task": 0} and none.age(found.now) == 0.0


def test_what_runs_and_waits_is_counted(db: Database) -> None:
    a_user(db)
    now = now_ms()
    a_run(db, "queued", created_at=now - MINUTE, priority=0, in_line=True)
    a_run(db, "running", session_id="ses_1", input_tokens=900, cache_read_tokens=100)
    a_run(db, "running", session_id="ses_1", input_tokens=5)
    a_run(db, "succeeded", finished_at=now, session_id="ses_2", input_tokens=10_000)
    found = db.query(standing.read)
    assert {status: queue.size for status, queue in found.runs.items()} == {"queued": 1, "running": 2}
    assert (found.sessions, found.most_tokens) == (1, 1000)
    [(priority, tasks)] = found.tasks.items()
    assert (priority, tasks.size, tasks.since) == ("high", 1, now - MINUTE)
    assert tasks.age(now) == 60


def test_schedules_and_holds_are_counted(db: Database) -> None:
    a_user(db)
    now = now_ms()
    fixed = {"agent": "support", "input": "Go.", "cron": "* * * * *", "timezone": "UTC", "missed": "skip"}
    times = {"created_at": 1, "updated_at": 1}
    for name, next_at in (("a", now - MINUTE), ("b", now + 10 * MINUTE), ("c", None)):
        about = {"id": f"sch_{name}", "user_id": "usr_ada", "enabled": next_at is not None}
        add(db, schema.schedules, **about, next_at=next_at, **fixed, **times)
    hold = {"run_id": "run_1", "attempt": 1, "step": 1, "user_id": "usr_ada", "agent": "support"}
    for number in (1, 2):
        about = {"model": "m", "price_id": "p", "amount_nano": NANO // 4, "counters": []}
        add(db, schema.holds, id=f"hld_{number}", called_at=now - number * MINUTE, **hold, **about)
    found = db.query(standing.read)
    assert found.schedules == standing.Queue(1, now - MINUTE)
    assert found.holds == standing.Queue(2, now - 2 * MINUTE) and found.held_usd == 0.5


def test_counter_above_its_cap_is_an_overshoot(db: Database) -> None:
    def overshoot() -> int:
        at = now_ms()
        day, month = window_start("day", at), window_start("month", at)
        return db.query(lambda tx: standing.overshoot(tx, day, month))

    counter(db, "service", "day", NANO)
    counter(db, "user:usr_lowered", "day", 9 * NANO)
    cap = {"period": "day", "amount_nano": NANO, "updated_at": now_ms()}
    add(db, schema.caps, scope="user:usr_lowered", **cap)
    counter(db, "end_user:key_1/x", "day", 9 * NANO, key_id="key_1")
    counter(db, "user:usr_old", "day", 9 * NANO, starts_at=1)
    assert overshoot() == 0
    counter(db, "user:usr_over", "month", NANO + 7)
    assert overshoot() == 7
