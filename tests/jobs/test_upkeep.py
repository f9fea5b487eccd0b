"""Upkeep deletes expired rows only, however often and by however many workers it runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kombu.asynchronous.timer import Timer

from config import load
from service.ids import first_id, new_id
from service.jobs.celery_worker import create_worker
from service.jobs.upkeep import BATCH, DAY_MS, delete_expired
from service.store import session_expiry
from service.store.database import Database, Transaction
from service.store.schema import metadata
from service.store.schema.money import SAVED
from service.store.task_line import FORGOTTEN_AFTER
from service.types import now_ms
from tests.jobs.house import House, TaskWorker, until
from tests.tables import create_tables

TABLES = (
    *("runs", "notices", "idempotency", "sessions", "schedule_slots"),
    *("token_families", "sign_in_addresses", "signing_keys", "task_turns", "counters", "savings_hourly"),
)


@pytest.fixture
def db(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/upkeep.db")
    create_tables(database.engine)
    yield database
    database.close()


def fill(db: Database, many: int) -> None:
    """`many` old rows in each table, and one that has its time before it."""
    now = now_ms()
    old = now - 100 * DAY_MS
    born = first_id("run", old)
    user = {"username": "ada", "password_hash": "x", "role": "user", "created_at": 0, "disabled": False}
    run: dict[str, Any] = {
        "user_id": "u",
        "agent": "a",
        "agent_version": "1",
        "door": "invoke",
        "request_id": "r",
    }
    run |= {"request": {}, "status": "succeeded", "cache": "miss", "created_at": old}
    key = {"user_id": "u", "fingerprint": "f", "created_at": old}
    session = {"user_id": "u", "agent": "a", "created_at": old, "updated_at": old}
    slot = {"schedule_id": "sch_1", "outcome": "skipped"}
    over = now - 1 - session_expiry.GRACE_MS
    family = {"user_id": "u", "current_jti": "j", "created_at": old}
    counter = {"window_id": "w", "scope": "service", "period": "day", "starts_at": old, "seq": 1}
    counter |= dict.fromkeys(("cap_nano", "spent_nano", "held_nano"), 0)
    saving = dict.fromkeys(("user_id", "key_id", "end_user", "agent", "model"), "u") | dict.fromkeys(SAVED, 0)
    notice = {"url": "u", "signer": "s", "body": {}, "status": "delivered", "attempts": 1}
    signing = {"algorithm": "EdDSA", "sealed": "s", "created_at": old, "signs_from": old}
    rows: dict[str, list[dict[str, Any]]] = {
        "users": [{**user, "id": "u"}, {**user, "id": "v", "username": "bob"}],
        "schedules": [
            {
                **dict.fromkeys(("user_id", "agent", "input", "cron", "timezone", "missed"), "u"),
                "id": "sch_1",
                "enabled": False,
                "created_at": old,
                "updated_at": old,
            }
        ],
        "runs": [{**run, "id": f"{born}{n}", "finished_at": old} for n in range(many)],
        "notices": [{**notice, "id": f"n{n}", "created_at": old} for n in range(many)],
        "idempotency": [{**key, "key": f"k{n}", "expires_at": now - 1} for n in range(many)],
        "sessions": [{**session, "id": f"ses_{n}", "expires_at": over} for n in range(many)],
        "schedule_slots": [{**slot, "slot": n, "until": n, "at": old} for n in range(many)],
        "token_families": [{**family, "id": f"f{n}", "expires_at": now - 1} for n in range(many)],
        "sign_in_addresses": [{"user_id": "u", "digest": f"d{n}", "seen_at": old} for n in range(many)],
        "task_turns": [{"priority": 1, "holder": f"usr_{n}", "turn": n} for n in range(many)],
        "counters": [{**counter, "id": f"w/{n}"} for n in range(many)],
        "savings_hourly": [{**saving, "hour": n} for n in range(many)],
        "signing_keys": [
            {**signing, "number": n, "kid": f"k{n}", "verifies_until": now - 1} for n in range(many)
        ],
    }
    rows["runs"] += [
        {**run, "id": new_id("run"), "finished_at": now},
        {**run, "id": f"{born}_long", "finished_at": now},
        {**run, "id": f"{born}_going", "finished_at": None},
    ]
    rows["notices"].append({**notice, "id": "n_new", "created_at": now})
    rows["idempotency"].append({**key, "user_id": "v", "key": "k0", "expires_at": now + DAY_MS})
    rows["sessions"].append({**session, "id": "ses_new", "expires_at": now + DAY_MS})
    rows["schedule_slots"].append({**slot, "slot": many, "until": many, "at": now})
    rows["token_families"].append({**family, "id": "f_new", "expires_at": now + DAY_MS})
    rows["sign_in_addresses"].append({"user_id": "u", "digest": "new", "seen_at": now})
    rows["task_turns"].append({"priority": 1, "holder": "usr_new", "turn": many + FORGOTTEN_AFTER})
    rows["signing_keys"].append({**signing, "number": many, "kid": "new", "verifies_until": None})
    rows["savings_hourly"].append({**saving, "hour": now // 3_600_000})
    rows["counters"].append({**counter, "id": "w/new", "starts_at": now})
    with db.begin() as tx:
        for name, values in rows.items():
            for value in values:
                add(tx, name, value)


def add(tx: Transaction, name: str, row: dict[str, Any]) -> None:
    table = metadata.tables[name]
    tx.execute(table.insert(), tx.sealed(table, row, "u"))


def left(db: Database) -> dict[str, int]:
    with db.read() as tx:
        return {name: len(tx.rows(metadata.tables[name].select())) for name in TABLES}


def test_only_expired_rows_are_deleted(db: Database) -> None:
    fill(db, 3)
    assert set(delete_expired(db, 90).values()) == {3}
    assert left(db) == {"runs": 3, **dict.fromkeys(TABLES[1:], 1)}
    with db.read() as tx:  # ada's old key has the name of bob's new one
        assert [row["user_id"] for row in tx.rows(metadata.tables["idempotency"].select())] == ["v"]


def test_upkeep_is_idempotent_and_concurrent(db: Database) -> None:
    fill(db, BATCH * 2 + 1)
    threads = [threading.Thread(target=delete_expired, args=(db, 90)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left(db) == {"runs": 3, **dict.fromkeys(TABLES[1:], 1)}
    assert set(delete_expired(db, 90).values()) == {0}


def test_upkeep_pass_ends_in_time_and_serves_every_kind(db: Database) -> None:
    """Check one batch per transaction: other writers wait no longer than that."""
    fill(db, BATCH * 2 + 1)
    first = delete_expired(db, 90, seconds=0)
    assert first == dict.fromkeys(first, BATCH) and len(first) == len(TABLES)
    assert delete_expired(db, 90, seconds=0) == first
    assert delete_expired(db, 90) == dict.fromkeys(first, 1)


def test_long_session_is_deleted_in_batches(db: Database) -> None:
    fill(db, 1)
    with db.begin() as tx:
        run = dict(tx.rows(metadata.tables["runs"].select())[0])
        run |= {"session_id": "ses_0", "finished_at": now_ms()}
        message = {"session_id": "ses_0", "run_id": "r", "role": "user", "content": "", "tokens": 1}
        for number in range(BATCH + 5):
            add(tx, "runs", {**run, "id": new_id("run")})
            add(tx, "messages", {**message, "seq": number + 1, "created_at": number})
    held = 2 * (BATCH + 5) + 1  # with the session itself
    assert [delete_expired(db, 90, seconds=0)["sessions"] for _ in range(3)] == [
        BATCH,
        BATCH,
        held - 2 * BATCH,
    ]
    assert left(db)["sessions"] == 1


def test_session_with_a_running_run_is_kept(db: Database) -> None:
    fill(db, 1)
    with db.begin() as tx:
        runs = metadata.tables["runs"]
        run = dict(tx.rows(runs.select())[0]) | {"session_id": "ses_0"}
        add(tx, "runs", {**run, "id": new_id("run"), "finished_at": now_ms()})
        add(tx, "runs", {**run, "id": new_id("run"), "finished_at": None})
        message = {"session_id": "ses_0", "seq": 1, "run_id": "r", "role": "user", "content": "", "tokens": 1}
        add(tx, "messages", {**message, "created_at": 1})
    assert delete_expired(db, 90)["sessions"] == 0


def test_task_worker_runs_upkeep_on_schedule(house: House, worker: TaskWorker) -> None:
    house.sql(
        "INSERT INTO idempotency (user_id, key, fingerprint, created_at, expires_at) VALUES ('x', 'old', 'f', 0, 1)"
    )
    consumer = SimpleNamespace(app=create_worker(load(house.server.env)), timer=Timer())
    [clock] = consumer.app.steps["consumer"]
    clock(consumer).start(consumer)
    [scheduled] = consumer.timer.queue
    scheduled.entry()  # as a minute later
    until(lambda: not house.sql("SELECT 1 FROM idempotency WHERE key = 'old'"), "its end")
    assert consumer.timer.queue, "the next one"
