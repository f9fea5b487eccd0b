"""All writers to the database against each other on PostgreSQL: no deadlock, and the ledger adds up.

A new writer gets a thread here, and a line in the table of locks in docs/architecture.md.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.audit.verify import verify_all
from service.auth.signing_keys import Lifetimes, SigningKeys
from service.errors import Conflict
from service.jobs.upkeep import delete_expired
from service.store import holds, identities, token_families
from service.store.database import Transaction
from service.store.identities import Identity
from service.store.schema import sessions
from service.types import new_id, now_ms
from service.usage.ledger import check
from service.usage.reservation import sweep_holds
from service.usage.rollup import roll_up
from tests.chaos.conftest import Postgres
from tests.chaos.town import Town
from tests.conftest import Model, RedisServer, slipway_server, wait_until
from tests.jobs.house import TaskWorker
from tests.usage.house import TABLE, House

SECONDS = 20.0
CLERK = """\
description: Asks before it appends a line
pattern: react
tier: {default: simple}
tools: [append_line]
approvals: [append_line]
limits: {steps: 4, seconds: 60}
"""
COPIES = 12  # of an agent: each can have three windows opened
UNLIMITED = dict.fromkeys(
    ("LIMIT_RUNS", "LIMIT_SESSION", "LIMIT_WRITES", "LIMIT_READS", "LIMIT_LOGIN", "LIMIT_CONCURRENT_RUNS"),
    "none",
)
SETTINGS = {
    **UNLIMITED,
    "WEB_CONCURRENCY": "2",
    "THREADS": "32",
    "TASK_CONCURRENCY": "2",
    "SWEEP_SECONDS": "0.5",
    "BATCH_MAX_SIZE": "4",
    "BATCH_MAX_WAIT_SECONDS": "1",
    "BUDGET_SERVICE_DAY_USD": "50",
    "BUDGET_WORKSPACE_DAY_USD": "50",
    "BUDGET_USER_DAY_USD": "20",
}
PERIODS = ("day", "month", "total")
_DEADLOCKS = sa.text("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")


def invoke(town: Town, turn: int) -> None:
    town.ask(town.anyone(), f"copy{turn % COPIES}", f"Question {turn}?")


def stream(town: Town, turn: int) -> None:
    town.ask(town.anyone(), "assistant", f"Tell me of {turn}.", "stream")


def steps(town: Town, turn: int) -> None:
    """Several steps: each settles the last and holds for the next."""
    town.ask(town.anyone(), "scribe", "Call the append_line tool 4 times.")


def approve(town: Town, turn: int) -> None:
    waits = town.ask(town.anyone(), "clerk", "Call the append_line tool twice.")
    for approval in waits.get("approvals", ()):
        decision = {"decision": random.choice(["approve", "deny"])}
        town.send(town.admin, "POST", f"/v1/approvals/{approval}", decision)


def converse(town: Town, turn: int) -> None:
    """Turns of one session that want it at once; then it is deleted, or its time is over."""
    client = town.anyone()
    session = town.send(client, "POST", "/v1/sessions", {"agent": "assistant"})["id"]
    how = ("queue", "interrupt", "reject")[turn % 3]
    asked = [
        threading.Thread(
            target=town.ask,
            args=(client, "assistant", f"Turn {n}", door),
            kwargs={"session_id": session, "on_conflict": how},
        )
        for n, door in enumerate(("invoke", "tasks", "invoke"))
    ]
    for thread in asked:
        thread.start()
    town.send(
        town.admin, "PUT", f"/v1/admin/budgets/session:{session}", {"amount_usd": "5", "period": "total"}
    )
    town.send(client, "PATCH", f"/v1/sessions/{session}", {"title": "Ours"})
    for thread in asked:
        thread.join()
    if turn % 2:
        town.send(client, "DELETE", f"/v1/sessions/{session}")
    else:
        town.stale.append(session)


def tasks(town: Town, turn: int) -> None:
    client = town.anyone()
    priority = ("batch", "normal", "batch")[turn % 3]
    run = town.ask(client, "assistant", f"Later {turn}", "tasks", priority=priority)
    if turn % 4 == 0:
        town.send(client, "POST", f"/v1/runs/{run['run_id']}/cancel")


def cancel(town: Town, turn: int) -> None:
    for run in town.send(town.admin, "GET", "/v1/runs?limit=10").get("data", ()):
        if run["status"] in ("running", "queued", "waiting_approval") and random.random() < 0.2:
            town.send(town.admin, "POST", f"/v1/runs/{run['run_id']}/cancel")


def set_caps(town: Town, turn: int) -> None:
    """Most open a window; the others change or lift one that is open."""
    scopes = [
        f"agent:copy{turn // 3 % COPIES}",
        f"user:{random.choice(town.users)[0]}",
        "service",
        "agent:scribe",
    ]
    scope = scopes[turn % len(scopes)]
    amount = None if turn % 5 == 4 else "40"
    body = {"amount_usd": amount, "period": PERIODS[turn // 4 % 3]}
    town.send(town.admin, "PUT", f"/v1/admin/budgets/{scope}", body)
    town.send(town.admin, "GET", "/v1/admin/budgets")


def come_and_go(town: Town, turn: int) -> None:
    """Delete a user during a run, or erase them."""
    user_id, client = town.join()
    with client:
        key = town.send(client, "POST", "/v1/auth/keys", {"name": "mine"})
        cap = {"amount_usd": "1", "period": "day"}
        town.send(town.admin, "PUT", f"/v1/admin/budgets/key:{key['id']}", cap)
        run = town.ask(client, "assistant", "Who am I?")
        town.send(client, "POST", f"/v1/runs/{run.get('run_id', 'run_none')}/feedback", {"score": 1})
        asked = threading.Thread(target=town.ask, args=(client, "assistant", "Still there?"))
        asked.start()
        method, end = ("DELETE", "") if turn % 2 else ("POST", "/erase")
        town.send(town.admin, method, f"/v1/admin/users/{user_id}{end}")
        asked.join()


def link(town: Town, turn: int) -> None:
    """Identities of an issuer move between users, whose log-ins end, and whose roles change."""
    while len(town.linked) < 3:
        user_id, client = town.join()
        client.close()
        town.linked.append(user_id)
    db, identity = town.books.db, Identity("https://login.example", f"sub-{turn % 4}")
    former, owner = random.sample(town.linked, 2)
    marker, now = new_id("fam"), now_ms()

    def move(tx: Transaction) -> None:
        identities.link(tx, identity, owner)
        token_families.revoke_all(tx, former, marker, now)

    db.transact(move)
    db.transact(lambda tx: identities.keep_roles_at(tx, identity, now))
    family = new_id("fam")
    db.transact(lambda tx: token_families.insert(tx, family, owner, "", now=now, expires_at=now + 60_000))
    town.send(town.admin, "PATCH", f"/v1/admin/users/{owner}", {"role": ("user", "operator")[turn % 2]})


def rotate_keys(town: Town, turn: int) -> None:
    """Rotate keys under a secret of its own: the service's stay as they are."""
    keys = SigningKeys(town.books.db, "a" * 32, "", Lifetimes(0, 3600))
    with suppress(Conflict):
        keys.rotate()


def tenants(town: Town, turn: int) -> None:
    """Workspaces come and go while their users do, and their caps are set."""
    path = "/v1/admin/workspaces"
    made, other = (
        town.send(town.admin, "POST", path, {"name": f"w{turn}-{random.getrandbits(64):x}"})["id"]
        for _ in range(2)
    )
    body = {"username": "ada", "password": "a-password", "workspace_id": made}
    changes: list[tuple[str, str, object]] = [
        ("POST", "/v1/admin/users", body),
        ("PATCH", f"{path}/{made}", {"disabled": True}),
        ("PATCH", f"{path}/{other}", {"name": f"x{turn}-{random.getrandbits(64):x}"}),
        ("PUT", f"/v1/admin/budgets/workspace:{made}", {"amount_usd": "1", "period": "day"}),
        ("DELETE", f"{path}/{made}", None),
    ]
    threads = [threading.Thread(target=town.send, args=(town.admin, *change)) for change in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    town.send(town.admin, "DELETE", f"{path}/{other}")


def upkeep(town: Town, turn: int) -> None:
    """Run upkeep with retention 0, concurrently in another process."""
    stale, town.stale = town.stale, []
    over = sa.update(sessions).where(sessions.c.id.in_(stale)).values(expires_at=1)
    town.books.db.transact(lambda tx: tx.execute(over))
    delete_expired(town.books.db, 0)
    roll_up(town.books.db)
    sweep_holds(town.books.db, town.books.spending, older_than=0)


def verify(town: Town, turn: int) -> None:
    faults = check(town.books.db, TABLE).faults
    town.wrong += [str(fault) for fault in faults]


WRITERS: list[tuple[Callable[[Town, int], object], int, float]] = [
    (invoke, 3, 0.0),
    (stream, 2, 0.0),
    (steps, 3, 0.0),
    (approve, 1, 0.0),
    (converse, 2, 0.0),
    (tasks, 1, 0.2),
    (cancel, 1, 0.3),
    (set_caps, 2, 0.1),
    (come_and_go, 1, 0.2),
    (link, 2, 0.1),
    (rotate_keys, 2, 0.2),
    (tenants, 1, 0.2),
    (upkeep, 2, 0.5),
    (verify, 1, 1.0),
]


@pytest.fixture
def agents(agents_dir: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "agents"
    shutil.copytree(agents_dir, folder)
    for number in range(COPIES):
        shutil.copytree(folder / "assistant", folder / f"copy{number}")
    shutil.copytree(folder / "scribe", folder / "clerk")
    (folder / "clerk" / "agent.yaml").write_text(CLERK)
    return folder


@pytest.fixture
def town(
    postgres: Postgres, own_redis: RedisServer, model: Model, agents: Path, tmp_path: Path
) -> Iterator[Town]:
    model.reset()
    settings = {**SETTINGS, "AGENTS_DIR": str(agents), "TEST_LINES": str(tmp_path / "lines")}
    url = postgres.create("locks")
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
    print(dict(sorted(town.answers.items())), checked[:4])
    assert (checked.faults, checked.held) == ([], 0)
    assert logged(town, "transaction_retried") == [] and logged(town, "database_away") == []
    town.books.db.engine.dispose()  # PostgreSQL counts what a connection saw when it ends, or a little later
    time.sleep(1.5)
    assert (deadlocks(town) - before, town.wrong) == (0, [])
    assert len(town.answers) > 20 and checked.entries > 200, "too little was written to prove anything"
