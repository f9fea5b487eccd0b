"""Migrations that fail, wait, are locked out or follow a broken one: applied steps and messages."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.config import Config

from migrations import turn
from tests.conftest import ROOT
from tests.store.test_migrations import REVISIONS, config

HEAD = REVISIONS[0]
STEP = '''\
"""a step of a test

Revision ID: {revision}
Revises: {before}
"""

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "{revision}"
down_revision = "{before}"
OLDEST_CODE = "0002"


def upgrade() -> None:
    {upgrade}


def downgrade() -> None:
    {downgrade}
'''

Migrate = Callable[..., Config]


@pytest.fixture
def address(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


@pytest.fixture
def engine(address: str) -> sa.Engine:
    return sa.create_engine(address, poolclass=sa.pool.NullPool)


@pytest.fixture
def write(address: str, tmp_path: Path) -> Callable[..., Config]:
    """Writes further steps, each with what it does; returns Alembic's configuration with all."""

    def write(*steps: str, downgrade: str = "pass") -> Config:
        before = HEAD
        for number, upgrade in enumerate(steps, 9001):
            text = STEP.format(
                revision=number, before=before, upgrade=upgrade.replace("\n", "\n    "), downgrade=downgrade
            )
            (tmp_path / f"{number}_step.py").write_text(text)
            before = str(number)
        alembic = config(address)
        folders = (str(ROOT / "migrations" / "versions"), str(tmp_path))
        alembic.set_main_option("version_locations", os.pathsep.join(folders))
        alembic.attributes.update(wait=0.0, patience=0.0)
        return alembic

    return write


only_postgresql = pytest.mark.parametrize("url", ["postgresql"], indirect=True)


def revision(engine: sa.Engine) -> str:
    with engine.connect() as connection:
        return str(connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar_one())


def refused(alembic: Config) -> str:
    """Why `alembic upgrade head` ends."""
    with pytest.raises(SystemExit) as ended:
        command.upgrade(alembic, "head")
    return str(ended.value)


def test_steps_before_a_failure_stay_applied(write: Migrate, engine: sa.Engine) -> None:
    first, broken = 'op.add_column("users", sa.Column("a", sa.Integer()))', "raise ZeroDivisionError"
    with pytest.raises(ZeroDivisionError):
        command.upgrade(
            write(first, f'op.create_table("b", sa.Column("id", sa.Integer()))\n{broken}'), "head"
        )
    assert revision(engine) == "9001"
    assert not sa.inspect(engine).has_table("b")  # nothing of the step that failed
    with engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT oldest_code FROM schema_compatibility")).scalar_one()
    assert kept == "0002"
    command.upgrade(write(first, 'op.create_table("b", sa.Column("id", sa.Integer()))'), "head")
    assert revision(engine) == "9002"


@only_postgresql
def test_a_step_that_was_cut_short_runs_again(write: Migrate, engine: sa.Engine) -> None:
    done = (
        'gentle.create_index("ix_new", "users", ["role"])\n'
        'gentle.replace_index("ix_runs_session_id", "runs", ["session_id", "id"])\n'
        'gentle.replace_primary_key("pk_holds", "holds", ["id", "run_id"])\n'
        'gentle.add_columns("users", sa.Column("a", sa.Integer()))\n'
    )
    undone = 'gentle.drop_columns("users", "a"); gentle.drop_index("ix_new", "users")'
    with pytest.raises(ZeroDivisionError):
        command.upgrade(write(done + "raise ZeroDivisionError"), "head")
    assert revision(engine) == HEAD
    command.upgrade(write(done, downgrade=undone), "head")
    inspector = sa.inspect(engine)
    indexes = {index["name"]: index["column_names"] for index in inspector.get_indexes("runs")}
    assert indexes["ix_runs_session_id"] == ["session_id", "id"]
    assert not [name for name in indexes if name and name.endswith("_new")]
    assert inspector.get_pk_constraint("holds")["constrained_columns"] == ["id", "run_id"]
    with pytest.raises(ZeroDivisionError):
        command.downgrade(write(done, downgrade=f"{undone}; raise ZeroDivisionError"), HEAD)
    command.downgrade(write(done, downgrade=undone), HEAD)
    assert revision(engine) == HEAD


@only_postgresql
def test_an_invalid_index_is_built_again(write: Migrate, engine: sa.Engine) -> None:
    command.upgrade(write(), "head")
    with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        row = "INSERT INTO caps (scope, period, updated_at) VALUES (:scope, 'day', 1)"
        connection.execute(sa.text(row), [{"scope": "a"}, {"scope": "b"}])
        with pytest.raises(sa.exc.IntegrityError):
            connection.execute(sa.text("CREATE UNIQUE INDEX CONCURRENTLY ix_caps_period ON caps (period)"))
    command.upgrade(write('gentle.create_index("ix_caps_period", "caps", ["period"])'), "head")
    with engine.connect() as connection:
        valid = "SELECT indisvalid, indisunique FROM pg_index WHERE indexrelid = 'ix_caps_period'::regclass"
        assert tuple(connection.execute(sa.text(valid)).one()) == (True, False)


@only_postgresql
def test_a_lock_that_cannot_be_had_is_given_up_with_its_holder(write: Migrate, engine: sa.Engine) -> None:
    first, second = (
        f'gentle.add_columns("{table}", sa.Column("a", sa.Integer()))' for table in ("users", "runs")
    )
    command.upgrade(write(), "head")
    with engine.begin() as reader:
        pid = reader.execute(sa.text("SELECT pg_backend_pid(), count(*) FROM runs")).scalar()
        why = refused(write(first, second))
    assert why.startswith(
        "The database cannot be migrated. It is at revision 9001; the next step could not have its"
    )
    assert f": process {pid} of the database server, idle in transaction, holds some for" in why
    command.upgrade(write(first, second), "head")
    assert revision(engine) == "9002"


@only_postgresql
def test_a_step_waits_for_a_lock_and_is_tried_again(
    write: Migrate, engine: sa.Engine, capfd: pytest.CaptureFixture[str]
) -> None:
    """The step itself ends the transaction that it waits for, when it is tried the second time."""
    command.upgrade(write(), "head")
    reader = engine.connect()
    pid = reader.execute(sa.text("SELECT pg_backend_pid(), count(*) FROM runs")).scalar()
    end = f"""
tried = getattr(gentle, "tried_in_test", False)
gentle.tried_in_test = True
if tried:
    op.execute("SELECT pg_terminate_backend({pid})")
gentle.add_columns("runs", sa.Column("a", sa.Integer()))"""
    alembic = write(end)
    alembic.attributes["patience"] = 30.0
    command.upgrade(alembic, "head")
    reader.invalidate()
    reader.close()
    assert revision(engine) == "9001"
    assert f"after revision {HEAD}, waiting for locks: process {pid}" in capfd.readouterr().err


@only_postgresql
def test_another_migrator_is_waited_for_and_then_named(write: Migrate, engine: sa.Engine) -> None:
    alembic = write()
    with engine.begin() as other:
        pid = other.execute(sa.text(f"SELECT pg_backend_pid(), pg_advisory_xact_lock({turn.KEY})")).scalar()
        expected = f"Another migration is under way: process {pid} of the database server holds its lock."
        assert refused(alembic) == f"The database cannot be migrated. {expected}"
        command.current(alembic)  # looks only, and waits for nobody
    command.upgrade(alembic, "head")
    assert revision(engine) == HEAD


@only_postgresql
def test_lost_lock_stops_the_migration_before_its_step(write: Migrate, engine: sa.Engine) -> None:
    kill = (
        'op.execute("SELECT pg_terminate_backend(pid) FROM pg_locks '
        f"WHERE locktype = 'advisory' AND objid = {turn.KEY}\")\n"
    )
    add = 'op.add_column("users", sa.Column("a", sa.Integer()))'
    why = refused(write(kill + add))
    assert why.startswith(
        "The database cannot be migrated. The connection that keeps other migrations out was lost."
    )
    assert revision(engine) == HEAD
    assert "a" not in {column["name"] for column in sa.inspect(engine).get_columns("users")}


@only_postgresql
def test_nothing_is_left_on_the_session(write: Migrate, engine: sa.Engine) -> None:
    """A pooler gives the session to others: what a step sets ends with its transaction."""
    probe = (
        "for begun in (True, False):\n"
        "    with op.get_context().autocommit_block():\n"
        "        op.execute(\"CREATE TABLE IF NOT EXISTS seen AS SELECT current_setting('lock_timeout') AS value\")"
    )
    command.upgrade(write(probe), "head")
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT value FROM seen")).scalar_one() == "0"


@pytest.mark.parametrize("url", ["sqlite"], indirect=True)
def test_steps_are_counted_once(write: Migrate, engine: sa.Engine) -> None:
    alembic = write(*['op.execute("SELECT 1")'] * 3)
    command.upgrade(alembic, HEAD)
    command.upgrade(alembic, "+2")
    assert revision(engine) == "9002"
    command.downgrade(alembic, "-1")
    assert revision(engine) == "9001"
