"""Migrations while a service is at work on the same PostgreSQL: nothing it asks for fails, whatever ends them."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

import psycopg
import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import IsolationLevel

from service.store import schema
from service.types import DEFAULT_WORKSPACE
from tests.conftest import PYTHON, ROOT, Model, RedisServer, Slipway, slipway_server, wait_until
from tests.store.test_migrations import REVISIONS, config, of_search
from tests.store.test_newer import newer_code
from tests.store.traffic import Traffic, fill, long_reader

pytestmark = [
    *(pytest.mark.slow, pytest.mark.timeout(600)),
    pytest.mark.filterwarnings("ignore:Did not recognize type .halfvec."),
]
HEAD = REVISIONS[0]
READER_SECONDS = 12  # longer than any statement of the service may wait
NEWER = f'''\
"""newer: every kind of change that a version makes beside the one before it

Revision ID: 9001
Revises: {HEAD}
"""

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "9001"
down_revision = "{HEAD}"
OLDEST_CODE = "{HEAD}"


def upgrade() -> None:
    gentle.create_index("ix_ledger_model", "ledger", ["model"], where="account = 'upstream'")
    gentle.replace_index("ix_runs_user_id_id", "runs", ["user_id", "id", "agent"])
    gentle.replace_primary_key("pk_holds", "holds", ["id", "run_id"])
    gentle.add_columns("runs", sa.Column("nickname", sa.String(32)))
    gentle.add_columns("messages", sa.Column("nickname", sa.String(32)))
    op.create_table(
        "nicknames",
        sa.Column("run_id", sa.String(32), sa.ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("user_id", sa.String(32), sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    )
'''


@pytest.fixture
def address(postgres_url: str) -> str:
    """An empty PostgreSQL database."""
    name = f"live_{time.monotonic_ns()}"
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres_url.replace("/postgres?", f"/{name}?")


@contextmanager
def migrating(address: str, root: Path = ROOT) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [PYTHON, "-m", "alembic", "upgrade", "head"],
        cwd=root,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": address},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def upgrade(address: str, revision: str) -> None:
    command.upgrade(config(address.replace("postgresql://", "postgresql+psycopg://", 1)), revision)


def ended(child: subprocess.Popen[str]) -> str:
    """Wait for the successful end; return its stderr."""
    told = child.communicate(timeout=300)[1]
    assert child.returncode == 0, told
    return told


def has_the_lock(address: str) -> bool:
    """Whether somebody migrates."""
    with psycopg.connect(address, autocommit=True) as connection:
        held = (
            "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database WHERE locktype = 'advisory'"
        )
        return connection.execute(f"{held} AND datname = current_database()").fetchone() == (1,)


def workspaces_of(address: str, *tables: str) -> set[str]:
    with psycopg.connect(address, autocommit=True) as connection:
        rows = [
            connection.execute(f"SELECT DISTINCT workspace_id FROM {table}").fetchall()  # type: ignore[call-overload]
            for table in tables
        ]
    return {workspace for found in rows for (workspace,) in found}


def is_whole(address: str) -> bool:
    """Whether the schema is the newest one, with no index that is broken or left over."""
    engine = sa.create_engine(
        address.replace("postgresql://", "postgresql+psycopg://", 1), poolclass=sa.pool.NullPool
    )
    with engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), schema.metadata)
        differences = [each for each in found if not of_search(each)]
        broken = connection.execute(
            sa.text("SELECT count(*) FROM pg_index WHERE NOT indisvalid")
        ).scalar_one()
        definition = sa.text("SELECT indexdef FROM pg_indexes WHERE indexname = :name")
        by_key = [
            connection.execute(definition, {"name": index.name}).scalar_one().partition(" WHERE ")[2]
            for index in (*schema.ledger.indexes, *schema.runs.indexes)
            if index.dialect_options["postgresql"]["where"] is not None
        ]
    return differences == [] and broken == 0 and all(by_key)


@pytest.mark.parametrize(
    ("start", "isolation", "tables"),
    [
        # Without a snapshot no concurrent build waits for the reader: the new primary key of `holds` meets it.
        ("0006", IsolationLevel.READ_COMMITTED, ["holds"]),
        ("0007", IsolationLevel.REPEATABLE_READ, ["runs", "ledger", "holds", "messages", "webhooks"]),
        # Of the release before workspaces, whose traffic goes on after them.
        ("0018", IsolationLevel.REPEATABLE_READ, ["users", "sessions", "runs", "approvals", "caps"]),
    ],
)
def test_migration_does_not_block_a_running_service(
    address: str, start: str, isolation: IsolationLevel, tables: list[str]
) -> None:
    upgrade(address, start)
    fill(address, 2_000)
    traffic = Traffic(address)
    with (
        traffic.running(),
        long_reader(address, *tables, isolation=isolation) as reader,
        migrating(address) as child,
    ):
        wait_until(lambda: has_the_lock(address), "the migration")
        time.sleep(READER_SECONDS)
        reader.rollback()
        told = ended(child)
    print(f"{traffic.done} transactions, the longest {traffic.longest:.2f} s\n{told}")
    assert traffic.failures == []
    assert traffic.done > 100
    assert is_whole(address)
    assert workspaces_of(address, "users", "sessions", "runs", "holds") <= {DEFAULT_WORKSPACE}


def test_migration_killed_repeatedly_completes(address: str) -> None:
    upgrade(address, "0004")
    fill(address, 200)
    for line in range(1, 40):
        with migrating(address) as child:
            assert child.stderr is not None
            told = child.stderr.readline()  # killed somewhere in the step after
            time.sleep(0.004 * (line % 5))
            child.kill()
        if not told:
            break
    with migrating(address) as child:
        assert ended(child) == ""
    assert is_whole(address)


def test_index_of_a_killed_migration_is_built_by_the_next(address: str) -> None:
    upgrade(address, "0004")
    fill(address, 200)
    builds = "SELECT count(*) FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%'"
    with psycopg.connect(address, autocommit=True) as look, long_reader(address, "ledger") as reader:
        with migrating(address) as child:
            wait_until(lambda: look.execute(builds).fetchone() == (1,), "a build that waits")
            child.kill()
            child.wait(60)
        with migrating(address) as child:  # beside the build that its backend goes on with
            time.sleep(3)
            reader.rollback()
            ended(child)
    assert is_whole(address)


def test_concurrent_migrations_run_each_step_once(address: str) -> None:
    with migrating(address) as one, migrating(address) as other:
        told = [line for child in (one, other) for line in ended(child).splitlines() if " up to " in line]
    assert [line.split(",")[0] for line in sorted(told)] == [f"alembic: up to {r}" for r in sorted(REVISIONS)]
    assert is_whole(address)


def test_requests_go_on_while_newer_code_migrates(
    address: str, tmp_path: Path, redis_server: RedisServer, model: Model
) -> None:
    root = newer_code(tmp_path, f'OLDEST_CODE = "{HEAD}"')
    (root / "migrations" / "versions" / "9001_newer.py").write_text(NEWER)
    statuses: list[int] = []
    over = Event()

    def ask(server: Slipway) -> None:
        with server.client() as client:
            while not over.is_set():
                answer = client.post("/v1/agents/assistant/invoke", json={"input": f"{time.monotonic_ns()}"})
                statuses.append(answer.status_code)
                statuses.append(client.get("/v1/runs").status_code)

    settings = {"DATABASE_URL": address, "LIMIT_RUNS": "none", "LIMIT_READS": "none"}
    with slipway_server(tmp_path / "home", redis_server.url, model.url, **settings) as server:
        threads = [Thread(target=ask, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            with (
                long_reader(address, "runs", "ledger", "holds", "messages") as reader,
                migrating(address, root) as child,
            ):
                wait_until(lambda: has_the_lock(address), "the migration")
                reader.execute(f"SELECT pg_sleep({READER_SECONDS})")
                reader.rollback()
                ended(child)
            before = len(statuses)
            wait_until(lambda: len(statuses) > before + 20, "requests on the newer database")
        finally:
            over.set()
            for thread in threads:
                thread.join(60)
    assert set(statuses) == {200}


def test_lock_is_released_with_the_process(address: str) -> None:
    """Killed while it waits for an index: its own backend may go on, and holds no lock that a next one needs."""
    upgrade(address, "0004")
    with long_reader(address, "ledger"):
        with migrating(address) as child:
            wait_until(lambda: has_the_lock(address), "the lock")
            child.kill()
            child.wait(60)
        wait_until(lambda: not has_the_lock(address), "the lock is free")
