"""What a sweep asks: each kind of work is found, and no other kind with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa

from service.audit.record import Action, record
from service.ids import new_id
from service.store import (
    agent_canaries,
    agent_versions,
    approvals,
    batches,
    erasures,
    holds,
    runs,
    schedules,
    schema,
    sweep,
    webhooks,
    workers,
)
from service.store.database import Database, Transaction
from service.store.holds import Hold
from service.store.schema import users
from service.store.sweep import Work
from service.types import Run, RunStatus, now_ms
from tests.tables import create_tables
from tests.usage.house import a_run

HOUR = 3_600_000
ME = "wrk_me"


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    database = Database(url)
    create_tables(database.engine)
    ada = {"id": "usr_ada", "username": "ada", "password_hash": "", "role": "user", "created_at": 0}
    with database.begin() as tx:
        tx.execute(sa.insert(users).values(**ada))
        for worker in (ME, "wrk_other"):
            workers.register(tx, worker, "web", "here", 1, HOUR)
    yield database
    database.close()


def running(tx: Transaction, worker_id: str) -> Run:
    run = a_run()
    assert runs.insert(tx, run, worker_id=worker_id)
    return run


def queued(tx: Transaction, wake_at: int | None) -> Run:
    run = a_run(status=RunStatus.QUEUED)
    assert runs.insert(tx, run, worker_id=None, wake_at=wake_at)
    return run


def held(tx: Transaction, run: Run, called_at: int) -> None:
    names = "hld_1", run.id, run.attempt, 1, run.workspace_id, run.user_id, None, run.agent, None
    holds.insert(tx, Hold(*names, "claude-sonnet-5-5", "price", 1, called_at))


def notice(tx: Transaction, at: int) -> None:
    webhooks.notice(tx, "warning", "https://example.com", "budgets", {}, at)


def batched(tx: Transaction) -> None:
    batches.add(tx, queued(tx, None), 1, {})


def asked(tx: Transaction, expires_at: int | None) -> None:
    run = queued(tx, None)
    call = {"call_id": "c", "name": "pay", "arguments": {}, "reason": "policy", "expires_at": expires_at}
    of_run = {"run_id": run.id, "user_id": run.user_id, "agent": run.agent}
    approvals.ask(tx, [{"id": f"apr_{run.id[4:]}", **of_run, **call}])


def scheduled(tx: Transaction, next_at: int | None) -> None:
    plan = {"agent": "assistant", "input": "Hello", "cron": "* * * * *", "timezone": "UTC", "missed": "once"}
    times = {"next_at": next_at, "created_at": 0, "updated_at": 0}
    row = {"id": new_id("sch"), "user_id": "usr_ada", "enabled": next_at is not None, **plan, **times}
    schedules.insert(tx, row)


def on_trial(tx: Transaction, next_at: int) -> None:
    """Start a canary that each process has noticed."""
    values = {"agent": "support", "version": "1" * 12, "against": "2" * 12, "share": 500}
    agent_canaries.start(tx, values, next_at)
    tx.execute(sa.update(schema.agent_canaries).values(changed_at=LONG_AGO))


LONG_AGO = now_ms() - HOUR
FOUND: list[tuple[Work, Callable[[Transaction], object]]] = [
    (Work.ABANDONED_RUNS, lambda tx: running(tx, "wrk_gone")),
    (Work.QUEUED_RUNS, lambda tx: queued(tx, LONG_AGO)),
    (Work.HELD_RUNS, lambda tx: running(tx, ME)),
    (Work.DEAD_WORKERS, lambda tx: workers.register(tx, "wrk_dead", "web", "here", 2, -2 * HOUR)),
    (Work.BATCHES, batched),
    (Work.DELIVERIES, lambda tx: notice(tx, LONG_AGO)),
    (Work.ORPHANED_HOLDS, lambda tx: held(tx, a_run(), LONG_AGO)),
    (Work.ERASURES, lambda tx: erasures.begin(tx, "usr_ada", LONG_AGO, 0, None)),
    (Work.EXPIRED_APPROVALS, lambda tx: asked(tx, LONG_AGO)),
    (Work.BUDGET_WAITS, lambda tx: runs.insert(tx, a_run(status=RunStatus.WAITING_BUDGET), worker_id=None)),
    (Work.SCHEDULES, lambda tx: scheduled(tx, LONG_AGO)),
    (Work.AGENT_PINS, lambda tx: agent_versions.pin(tx, "support", "0123456789ab", None)),
    (Work.CANARIES, lambda tx: on_trial(tx, LONG_AGO)),
    (Work.UNLINKED_AUDIT, lambda tx: record(tx, Action.SETTINGS, "service")),
]
LATER: list[Callable[[Transaction], object]] = [
    lambda tx: running(tx, "wrk_other"),
    lambda tx: queued(tx, now_ms() + HOUR),
    lambda tx: queued(tx, None),
    lambda tx: workers.register(tx, "wrk_lost", "web", "here", 2, -HOUR // 2),
    lambda tx: notice(tx, now_ms() + HOUR),
    lambda tx: held(tx, a_run(), now_ms()),
    lambda tx: held(tx, running(tx, "wrk_other"), LONG_AGO),
    lambda tx: erasures.begin(tx, "usr_ada", now_ms() + HOUR, 0, None),
    lambda tx: asked(tx, now_ms() + HOUR),
    lambda tx: asked(tx, None),
    lambda tx: scheduled(tx, now_ms() + HOUR),
    lambda tx: scheduled(tx, None),
    lambda tx: on_trial(tx, now_ms() + HOUR),
]


def test_every_kind_is_looked_at() -> None:
    assert {work for work, _ in FOUND} == set(Work)


@pytest.mark.parametrize("work,arrange", FOUND, ids=[work for work, _ in FOUND])
def test_each_kind_is_found_and_no_other(
    db: Database, work: Work, arrange: Callable[[Transaction], object]
) -> None:
    assert db.query(lambda tx: sweep.due(tx, ME)) == set()
    with db.begin() as tx:
        arrange(tx)
    assert db.query(lambda tx: sweep.due(tx, ME)) == {work}


def test_what_is_not_due_yet_is_no_work(db: Database) -> None:
    for arrange in LATER:
        with db.begin() as tx:
            arrange(tx)
        assert db.query(lambda tx: sweep.due(tx, ME)) == set()
