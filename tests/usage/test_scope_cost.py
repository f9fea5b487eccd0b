"""Cost of a scope so far, when a cap on it begins to count: exact, without reading every call of a closed day."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest
import sqlalchemy as sa

from service.store import ledger
from service.store.database import Database
from service.store.schema import metadata
from service.store.scope_cost import settled_cost
from service.store.usage import DAY_MS, HOUR_MS
from service.usage.rollup import roll_up
from tests.store.spied import watch
from tests.usage.calls import AGENTS, TODAY, Call, book, some

FIRST = TODAY - 6
SCOPES = ("service", *(f"agent:{name}" for name in AGENTS), "agent:none", "user:usr_0001", "key:key_1")
SPANS = [
    (0, (TODAY + 1) * DAY_MS),
    ((FIRST + 1) * DAY_MS + 1, TODAY * DAY_MS + 5 * HOUR_MS),
    ((FIRST + 2) * DAY_MS - 1, (FIRST + 2) * DAY_MS + 1),
    ((FIRST + 2) * DAY_MS, (FIRST + 2) * DAY_MS),
]


@pytest.fixture
def db(url: str) -> Iterator[Database]:
    with closing(Database(url)) as made:
        metadata.create_all(made.engine)
        yield made


def cost(db: Database, scope: str, since: int, until: int) -> int:
    def read(tx: object) -> int:
        tx.use_one_snapshot()  # type: ignore[arg-type]
        return settled_cost(tx, scope, since, until)  # type: ignore[arg-type]

    return db.query(read)


def expected(calls: list[Call], scope: str, since: int, until: int) -> int:
    kind, _, name = scope.partition(":")
    mine = {"service": lambda call: True, "agent": lambda call: call.agent == name}
    mine |= {"user": lambda call: call.user == name, "key": lambda call: call.key == name}
    return sum(call.cost for call in calls if since <= call.called_at < until and mine[kind](call))


def exact(db: Database, calls: list[Call]) -> None:
    for scope in SCOPES:
        for span in SPANS:
            assert cost(db, scope, *span) == expected(calls, scope, *span), (scope, span)


def test_scope_cost_equals_the_ledger_at_every_stage_of_the_roll_up(db: Database) -> None:
    calls = some(1_500, FIRST, TODAY + 1)
    random.Random(4).shuffle(calls)
    book(db, calls)
    exact(db, calls)
    for _ in range(20):
        roll_up(db, batches=1, size=150)
        exact(db, calls)


def test_a_call_that_was_booked_on_a_closed_day_counts_at_once(db: Database) -> None:
    """By a worker whose clock is days behind: upkeep has not counted that day again yet."""
    calls = some(300, FIRST, TODAY)
    book(db, calls)
    while roll_up(db):
        pass
    late = [Call((FIRST + 1) * DAY_MS + 7, agent=AGENTS[0], cost=1_000_003)]
    book(db, late)
    exact(db, calls + late)


def test_a_day_that_is_closed_meanwhile_counts_once(db: Database) -> None:
    calls = some(300, FIRST, TODAY)
    book(db, calls)
    roll_up(db, batches=2)
    with db.read() as tx:
        tx.use_one_snapshot()
        ledger.count(tx, 0, 1)
        while roll_up(db):
            pass
        for span in SPANS:
            assert settled_cost(tx, "service", *span) == expected(calls, "service", *span)
    exact(db, calls)


def test_calls_of_closed_days_are_counted_and_not_read(postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as session, suppress(sa.exc.ProgrammingError):
        session.execute(sa.text("CREATE DATABASE scope_cost"))
    with closing(Database(postgres_url.replace("/postgres?", "/scope_cost?"))) as db:
        spy = watch(db.engine)
        metadata.create_all(db.engine)
        book(db, some(10_000, FIRST, TODAY - 1))  # yesterday is closed an hour after midnight only
        while roll_up(db):
            pass
        with db.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as session:
            session.execute(sa.text("VACUUM ANALYZE"))
        for scope in ("service", "agent:support"):
            summed = spy.cost(lambda: cost(db, scope, *SPANS[0]))  # noqa: B023
            read = spy.cost(lambda: db.query(lambda tx: ledger.spent(tx, scope, *SPANS[0])))  # noqa: B023
            assert summed * 3 < read, spy.told()
