"""All writers to the database against each other: no deadlock on PostgreSQL, and on both the ledger adds up.

A new writer gets a thread here, and a line in the table of locks in docs/architecture.md.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.audit.verify import verify_all
from service.store import holds
from service.store.schema import gateway_calls
from service.usage.reservation import sweep_holds
from tests.chaos import account_writers as accounts
from tests.chaos import caller, writers
from tests.chaos.town import Town
from tests.chaos.writers import COPIES
from tests.conftest import Model, RedisServer, free_port, slipway_server, wait_until
from tests.jobs.house import TaskWorker
from tests.usage.house import House

SECONDS = 20.0
CLERK = """\
description: Asks before it appends a line
pattern: react
tier: {default: simple}
tools: [append_line]
approvals: [append_line]
limits: {steps: 4, seconds: 60}
"""
LEAD = """\
description: Has others answer
pattern: orchestrator
tier: {default: simple}
agents: [assistant, copy0]
limits: {steps: 6, seconds: 60}
"""
UNLIMITED = dict.fromkeys(
    ("LIMIT_RUNS", "LIMIT_SESSION", "LIMIT_WRITES", "LIMIT_READS", "LIMIT_LOGIN", "LIMIT_CONCURRENT_RUNS"),
    "none",
)
SETTINGS = {
    **UNLIMITED,
    "WEB_CONCURRENCY": "2",
    "THREADS": "40",
    "TASK_CONCURRENCY": "2",
    "SWEEP_SECONDS": "0.5",
    "BATCH_MAX_SIZE": "4",
    "BATCH_MAX_WAIT_SECONDS": "1",
    "BUDGET_SERVICE_DAY_USD": "50",
    "BUDGET_WORKSPACE_DAY_USD": "50",
    "BUDGET_USER_DAY_USD": "20",
}
_DEADLOCKS = sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
DONE_CALLS = sa.select(gateway_calls.c.id).where(gateway_calls.c.state == "done").limit(1)
WRITERS: list[tuple[Callable[[Town, int], object], int, float]] = [
    (writers.invoke, 3, 0.0),
    (writers.stream, 2, 0.0),
    (writers.steps, 3, 0.0),
    (writers.trees, 2, 0.0),
    (writers.remotes, 2, 0.2),
    (writers.approve, 1, 0.0),
    (writers.converse, 2, 0.0),
    (writers.tasks, 1, 0.2),
    (writers.plan, 2, 0.2),
    (writers.wait_for_money, 1, 0.2),
    (writers.cancel, 1, 0.3),
    (writers.stop_agents, 2, 0.3),
    (writers.set_caps, 2, 0.1),
    (writers.upkeep, 2, 0.5),
    (writers.verify, 1, 1.0),
    (accounts.leave, 1, 0.2),
    (accounts.erase, 2, 0.2),
    (accounts.disable, 2, 0.2),
    (accounts.sign_in, 2, 0.2),
    (accounts.keys_of_a_user, 2, 0.2),
    (accounts.note_uses, 2, 0.1),
    (accounts.link, 2, 0.1),
    (accounts.rotate_signing_keys, 2, 0.2),
    (accounts.tenants, 1, 0.2),
]


@pytest.fixture
def caller_port() -> Iterator[int]:
    port = free_port()
    with caller.serving(port):
        yield port


@pytest.fixture
def agents(agents_dir: Path, tmp_path: Path, caller_port: int) -> Path:
    folder = tmp_path / "agents"
    shutil.copytree(agents_dir, folder)
    for number in range(COPIES):
        shutil.copytree(folder / "assistant", folder / f"copy{number}")
    shutil.copytree(folder / "scribe", folder / "clerk")
    (folder / "clerk" / "agent.yaml").write_text(CLERK)
    shutil.copytree(folder / "assistant", folder / "lead")
    (folder / "lead" / "agent.yaml").write_text(LEAD)
    shutil.copytree(folder / "assistant", folder / "caller")
    (folder / "caller" / "agent.yaml").write_text(caller.AGENT.format(port=caller_port))
    return folder


@pytest.fixture(params=["sqlite", "postgresql"])
def town(
    request: pytest.FixtureRequest,
    own_redis: RedisServer,
    model: Model,
    agents: Path,
    tmp_path: Path,
    caller_port: int,
) -> Iterator[Town]:
    model.reset()
    settings = {**SETTINGS, "AGENTS_DIR": str(agents), "TEST_LINES": str(tmp_path / "lines")}
    settings["REMOTE_HOSTS"] = f"127.0.0.1:{caller_port}"
    url = f"sqlite:///{tmp_path}/locks.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create("locks")
    with ExitStack() as stack:
        server = stack.enter_context(
            slipway_server(tmp_path / "locks", own_redis.url, model.url, DATABASE_URL=url, **settings)
        )
        stack.enter_context(TaskWorker(server.env, tmp_path / "worker.log").running())
        books = House(url.replace("postgresql:", "postgresql+psycopg:"), create=False)
        stack.callback(books.db.close)
        town = Town(server, books)
        yield town
        for client in (town.admin, *(client for _, client in town.users)):
            client.close()


def deadlocks(town: Town) -> int:
    """Count deadlocks so far; SQLite, with one writer, has none."""
    if town.books.db.sqlite:
        return 0
    row = town.books.db.query(lambda tx: tx.row(_DEADLOCKS))
    assert row is not None
    return int(row["deadlocks"])


def logged(town: Town, event: str) -> list[str]:
    """Lines of the web and the task workers with this event."""
    logs = (town.server.log, town.server.log.parent.with_name("worker.log"))
    return [line for log in logs for line in log.read_text().splitlines() if f'"{event}"' in line]


def settle_down(town: Town) -> None:
    """Wait until no run is active; cancels runs waiting for approval."""

    def at_rest() -> bool:
        for approval in town.send(town.admin, "GET", "/v1/approvals?status=pending&limit=100").get(
            "data", ()
        ):
            town.send(town.admin, "POST", f"/v1/runs/{approval['run_id']}/cancel")
        time.sleep(0.5)
        sweep_holds(town.books.db, town.books.spending, older_than=0)
        return not town.books.db.query(holds.every)

    wait_until(at_rest, "the end of every hold", 120)


def test_all_writers_at_once_never_deadlock(town: Town) -> None:
    before = deadlocks(town)
    threads = [town.repeat(work, pause) for work, count, pause in WRITERS for _ in range(count)]
    town.over.wait(SECONDS)
    town.over.set()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    settle_down(town)
    wait_until(lambda: all(one.ok and not one.unlinked for one in verify_all(town.books.db)), "the audit")
    assert sum(one.checked for one in verify_all(town.books.db)) > 50
    checked = town.books.check()
    assert town.books.db.query(lambda tx: tx.rows(DONE_CALLS)), "no gateway call was made"
    print(dict(sorted(town.answers.items())), checked[:4])
    assert (checked.faults, checked.held) == ([], 0)
    assert logged(town, "transaction_retried") == [] and logged(town, "database_away") == []
    town.books.db.engine.dispose()  # PostgreSQL counts what a connection saw when it ends, or a little later
    time.sleep(1.5)
    assert (deadlocks(town) - before, town.wrong) == (0, [])
    assert len(town.answers) > 20 and checked.entries > 200, "too little was written to prove anything"
