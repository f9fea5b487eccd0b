"""PostgreSQL that is killed, refuses, or is unfit: the errors raised and the causes logged."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from config import load
from service.errors import DatabaseUnavailable
from service.store import fitness
from service.store.database import Database, Transaction
from service.store.outages import NO_OPTION, NO_RIGHT
from service.store.statement import Statement
from tests.chaos.conftest import Postgres
from tests.conftest import PYTHON, ROOT, free_port, wait_until
from tests.store.conftest import Log

notes = sa.Table("notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
PID = sa.text("SELECT pg_backend_pid() AS pid")
RAISE = "DO $$ BEGIN RAISE EXCEPTION 'not now' USING ERRCODE = '{}'; END $$"


def url_of(server: Postgres, **changes: str) -> str:
    parts = {"user": "slipway", "host": "127.0.0.1", "port": str(server.port), "database": "postgres"}
    where = {**parts, **changes}
    return "postgresql+psycopg://{user}@{host}:{port}/{database}".format(**where)


def test_killed_between_two_statements_a_transaction_is_done_again(postgres: Postgres, causes: Log) -> None:
    def work(tx: Transaction) -> int:
        attempts.append(tx.execute(notes.insert(), {"id": 1}))
        if len(attempts) == 1:
            postgres.kill()
            postgres.start()
        return tx.execute(notes.insert(), {"id": 2})

    attempts: list[int] = []
    with closing(Database(url_of(postgres), patience=30)) as db:
        notes.create(db.engine)
        db.transact(lambda tx: tx.execute(notes.insert(), {"id": 0}))
        db.transact(work)
        assert [row["id"] for row in db.query(lambda tx: tx.rows(sa.select(notes)))] == [0, 1, 2]
        notes.drop(db.engine)
    assert len(attempts) == 2
    assert (
        causes("database_away") == ["the server ended the connection"] and len(causes("database_back")) == 1
    )


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"database": "nowhere"}, "there is no such database, or the user may not use it"),
        ({"user": "nobody_here"}, "the user does not exist or may not log in"),
        ({"database": "postgres?sslmode=require"}, "TLS failed"),
        ({"host": "no-such-host.invalid"}, "the name of its host cannot be resolved"),
        ({"user": "locked:s3cr3t-word"}, "the password or the user is wrong"),
    ],
)
def test_cause_is_logged_once_without_secrets(
    postgres: Postgres,
    causes: Log,
    caplog: pytest.LogCaptureFixture,
    changes: dict[str, str],
    cause: str,
) -> None:
    with closing(Database(url_of(postgres))) as db:
        db.transact(lambda tx: tx.execute(sa.text("DROP ROLE IF EXISTS locked")))
        db.transact(lambda tx: tx.execute(sa.text("CREATE ROLE locked LOGIN PASSWORD 'right'")))
    postgres.admit("host all locked 127.0.0.1/32 scram-sha-256")
    with closing(Database(url_of(postgres, **changes))) as db:
        for _ in range(3):
            with pytest.raises(DatabaseUnavailable) as raised:
                db.query(lambda tx: tx.row(sa.text("SELECT 1")), patience=0)
            assert "127.0.0.1" not in str(raised.value)
    assert causes("database_away") == [cause]
    assert "s3cr3t-word" not in caplog.text and "127.0.0.1" not in caplog.text


def test_refused_connection_is_logged_as_the_cause(causes: Log) -> None:
    url = f"postgresql+psycopg://slipway@127.0.0.1:{free_port()}/x"
    with closing(Database(url)) as db, pytest.raises(DatabaseUnavailable):
        db.query(lambda tx: tx.row(sa.text("SELECT 1")), patience=0)
    assert causes("database_away") == ["connection refused: no server listens there"]


def test_a_server_that_does_not_answer(causes: Log) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://slipway@127.0.0.1:{silent.getsockname()[1]}/x"
        with closing(Database(url)) as db, pytest.raises(DatabaseUnavailable):
            db.query(lambda tx: tx.row(sa.text("SELECT 1")), patience=0)
    assert causes("database_away") == ["time-out: the server did not answer"]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_is_not_utf8_is_refused_with_that_word(
    postgres: Postgres, causes: Log, encoding: str
) -> None:
    name = f"in_{encoding.lower()}"
    engine = sa.create_engine(url_of(postgres), isolation_level="AUTOCOMMIT", poolclass=sa.pool.NullPool)
    with engine.connect() as connection:
        create = (
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        connection.execute(sa.text(create))
    url = url_of(postgres, database=name)
    with closing(Database(url, check=fitness.check)) as db, pytest.raises(DatabaseUnavailable):
        db.transact(lambda tx: tx.execute(sa.text("CREATE TABLE x (id INTEGER)")), patience=0)
    (cause,) = causes("database_away")
    assert cause.startswith(f"The database has the encoding {encoding}, and Slipway needs UTF8")
    migrated = _migrate(url)
    assert (migrated.returncode, migrated.stderr) == (1, f"The database cannot be migrated. {cause}\n")


def test_a_missing_right_and_an_unknown_option_are_one_sentence(postgres: Postgres) -> None:
    url = postgres.create("of_another")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE guest LOGIN")
        connection.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    told = "The database cannot be migrated:"
    found = _migrate(url.replace("slipway@", "guest@"))
    assert (found.returncode, found.stderr) == (1, f"{told} {NO_RIGHT}.\n")
    found = _migrate(f"{url}?target_session_attr=any")
    assert (found.returncode, found.stderr) == (1, f"{told} {NO_OPTION}.\n")


def _migrate(url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PYTHON, "-m", "alembic", "upgrade", "head"],
        cwd=ROOT,
        env={**os.environ, "APP_ENV": "testing", "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_unmigrated_database_is_used_after_the_migration(tmp_path: Path, causes: Log) -> None:
    url = f"sqlite:///{tmp_path}/x.db"
    with closing(Database(url, check=fitness.check)) as db:
        with pytest.raises(DatabaseUnavailable):
            db.query(lambda tx: tx.row(sa.text("SELECT 1")), patience=0)
        assert causes("database_away") == ["The database is not migrated: run `alembic upgrade head`."]
        environ = {**os.environ, "APP_ENV": "testing", "DATABASE_URL": url}
        for revision in ("0002", "head"):
            command = [PYTHON, "-m", "alembic", "upgrade", revision]
            subprocess.run(command, cwd=ROOT, env=environ, check=True, timeout=60)
            if revision != "head":
                with pytest.raises(DatabaseUnavailable):
                    db.ping()
                assert causes("database_away")[-1].startswith("The database is at revision 0002, and this")
        db.ping()
        assert len(causes("database_back")) == 1


def test_the_first_transaction_may_begin_with_a_statement_that_must_be_first(postgres: Postgres) -> None:
    """The look whether the database fits is a transaction of its own."""
    looked: list[sa.Connection] = []

    def look(connection: sa.Connection) -> None:
        connection.execute(sa.text("SELECT 1"))
        looked.append(connection)

    with closing(Database(postgres.url.replace("postgresql:", "postgresql+psycopg:"), check=look)) as db:
        db.query(Transaction.use_one_snapshot)
        db.query(Transaction.use_one_snapshot)
    assert len(looked) == 1


@pytest.mark.parametrize("path", ["driver", "sqlalchemy"])
def test_transient_server_errors_are_retried(postgres: Postgres, path: str) -> None:
    def work(state: str, tx: Transaction) -> None:
        attempts.append(state)
        if attempts.count(state) == 1:
            raises = RAISE.format(state)
            tx.execute(Statement(sa.text(raises)) if path == "driver" else sa.text(raises))

    states = ["08006", "08P01", "25006", "25P03", "53100", "53200", "53300", "53400", "55P03", "57014"]
    states += ["57P01", "57P02", "57P03", "58030"]
    attempts: list[str] = []
    with closing(Database(url_of(postgres))) as db:
        for state in states:
            db.transact(partial(work, state))
    assert attempts == [state for state in states for _ in range(2)]


@pytest.mark.parametrize("state", ["23505", "22003", "42P01", "XX000"])
def test_permanent_server_errors_are_raised_at_once(postgres: Postgres, state: str) -> None:
    def work(tx: Transaction) -> None:
        attempts.append(state)
        tx.execute(Statement(sa.text(RAISE.format(state))))

    attempts: list[str] = []
    with closing(Database(url_of(postgres))) as db, pytest.raises(psycopg.Error) as raised:
        db.transact(work)
    assert (raised.value.sqlstate, attempts) == (state, [state])


def test_a_server_that_is_read_only_is_let_go_of_with_the_whole_pool(postgres: Postgres, causes: Log) -> None:
    def pids(*transactions: Transaction) -> set[int]:
        return {row["pid"] for tx in transactions if (row := tx.row(PID))}

    def connected(old: set[int]) -> int:
        return int(postgres.sql(f"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY('{old}')"))

    with closing(Database(url_of(postgres))) as db:
        notes.create(db.engine)
        with db.read() as one, db.read() as two, db.read() as three:
            old = pids(one, two, three)
        assert connected(old) == 3
        with db.read() as in_use, postgres.read_only():
            with pytest.raises(DatabaseUnavailable):
                db.ping()
            with pytest.raises(DatabaseUnavailable):
                db.transact(lambda tx: tx.execute(notes.insert(), {"id": 1}), patience=0)
            assert pids(in_use) < old
        wait_until(lambda: connected(old) == 0, "the end of the old connections")
        db.transact(lambda tx: tx.execute(notes.insert(), {"id": 1}))
        db.ping()
        notes.drop(db.engine)
    assert causes("database_away") == [
        "the server is read-only: a standby, or default_transaction_read_only is on"
    ]
    assert len(causes("database_back")) == 1


def test_a_write_that_is_refused_lets_the_pool_go_too(postgres: Postgres) -> None:
    def refused(tx: Transaction) -> None:
        found.append(tx.row(PID))
        if len(found) == 1:
            tx.execute(Statement(sa.text(RAISE.format("25006"))))

    found: list[Any] = []
    with closing(Database(url_of(postgres))) as db:
        db.transact(refused)
        with db.read() as tx:
            found.append(tx.row(PID))
    assert found[0] != found[1] == found[2]


def test_of_several_hosts_the_one_that_takes_writes_is_used(postgres: Postgres) -> None:
    for hosts in ("127.0.0.1:{away},127.0.0.1:{port}", "127.0.0.1:{port},127.0.0.1:{away}"):
        place = hosts.format(away=free_port(), port=postgres.port)
        url = load({"DATABASE_URL": f"postgresql://slipway@{place}/postgres"}).database_url
        with closing(Database(url)) as db:
            db.ping()


def test_a_direct_connection_has_its_time_out_and_prepares(postgres: Postgres) -> None:
    bound = sa.text("SELECT current_setting('statement_timeout') AS bound")
    with closing(Database(url_of(postgres))) as db:
        with pytest.raises(RuntimeError), db.begin():
            raise RuntimeError  # rolled back
        with db.read() as tx:
            assert (tx.row(bound) or {})["bound"] == "15s"
        connection = db.engine.raw_connection()
        assert connection.driver_connection is not None
        assert connection.driver_connection.prepared is not None
        connection.close()
