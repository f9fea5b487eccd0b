"""PgBouncer in transaction mode, as it comes: nothing has to be set in it or in Slipway."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.store.database import Database, Transaction
from service.store.outages import cause_of
from service.store.statement import Statement
from tests.chaos.conftest import Postgres
from tests.conftest import PYTHON, ROOT, Model, RedisServer, slipway_server
from tests.grown.databases import bouncer
from tests.web.usage_house import CSV, GROUPS, opened, sheet_of

pytestmark = [pytest.mark.grown, pytest.mark.timeout(300)]
notes = sa.Table("pooled_notes", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
INSERT = Statement(sa.insert(notes))
COUNT = Statement(sa.select(sa.func.count().label("n")).select_from(notes))
OPEN = sa.text("SELECT state FROM pg_stat_activity WHERE datname = :database AND state <> 'idle'")
BOUND = sa.text("SELECT current_setting('statement_timeout') AS bound")


@pytest.fixture(scope="module")
def server(scratch: Path) -> Iterator[Postgres]:
    scratch.chmod(0o755)
    made = Postgres(Path(tempfile.mkdtemp(prefix="pooled", dir=scratch)))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def pooled(server: Postgres, scratch: Path) -> Iterator[str]:
    """Return the URL through PgBouncer."""
    with bouncer(scratch, server) as port:
        yield server.url.replace(str(server.port), str(port))


@pytest.fixture
def db(pooled: str) -> Iterator[Database]:
    with closing(Database(pooled.replace("postgresql:", "postgresql+psycopg:"), pool_size=20)) as made:
        notes.create(made.engine)
        yield made
        notes.drop(made.engine)


def test_transactions_are_atomic_and_leave_no_session_state(db: Database, server: Postgres) -> None:
    def work(tx: Transaction) -> str:
        return str((tx.row(BOUND) or {})["bound"])

    assert (db.transact(work), db.query(work)) == ("15s", "15s")
    with pytest.raises(RuntimeError), db.begin() as tx:
        tx.execute(INSERT, {"id": 1})
        raise RuntimeError
    db.transact(lambda tx: tx.send(INSERT, {"id": 1}, {"id": 2}, {"id": 3}))
    assert db.query(lambda tx: tx.row(COUNT)) == {"n": 3}
    db.query(Transaction.use_one_snapshot)
    with db.engine.connect() as session:  # without a transaction of ours
        assert session.execute(BOUND).scalar() == "0"
    assert db.query(lambda tx: tx.row(COUNT)) == {"n": 3}


def test_more_clients_than_pooled_sessions(db: Database) -> None:
    """Use every session of a pool of four from 16 threads, each statement often enough to be prepared."""

    def work(number: int) -> None:
        db.transact(lambda tx: tx.execute(INSERT, {"id": number}))
        db.query(lambda tx: tx.row(COUNT))

    with ThreadPoolExecutor(16) as threads:
        list(threads.map(work, range(400)))
    assert db.query(lambda tx: tx.row(COUNT)) == {"n": 400}


def test_usage_sheet_holds_no_session_between_pages(pooled: str, server: Postgres, tmp_path: Path) -> None:
    server.create("sheets")
    url = sa.make_url(pooled).set(database="sheets").render_as_string(hide_password=False)
    direct = sa.create_engine(server.url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool)
    with direct.connect() as session:
        with opened(tmp_path, DATABASE_URL=url) as house:
            lines = [line for page in house.pages(group_by=GROUPS) for line in page["data"]]
            answer = house.get(CSV, group_by=GROUPS, buffered=False)
            parts = iter(answer.response)
            text = bytes(next(parts))
            assert session.execute(OPEN, {"database": "sheets"}).all() == []
            sheet = sheet_of((text + b"".join(map(bytes, parts))).decode())
            answer.close()
        assert sheet == [{name: str(value) for name, value in line.items()} for line in lines]
        assert len(sheet) > 2_000


def test_five_hundred_runs(
    pooled: str, server: Postgres, scratch: Path, redis_server: RedisServer, model: Model
) -> None:
    environ = {**os.environ, "APP_ENV": "testing", "DATABASE_URL": pooled}
    for _ in range(2):  # the second one is not held up by what the first has left behind
        subprocess.run(
            [PYTHON, "-m", "alembic", "upgrade", "head"], cwd=ROOT, env=environ, check=True, timeout=60
        )
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "32", "LIMIT_RUNS": "none", "DATABASE_URL": pooled}
    home = Path(tempfile.mkdtemp(prefix="pooled", dir=scratch))
    with (
        slipway_server(home, redis_server.url, model.url, migrated=False, **settings) as service,
        service.client() as client,
        ThreadPoolExecutor(16) as threads,
    ):

        def ask(number: int) -> tuple[int, str]:
            door = "stream" if number % 5 == 0 else "invoke"
            question = {"input": f"Question {number}", "cache": "bypass"}
            answer = client.post(f"/v1/agents/assistant/{door}", json=question)
            whole = door == "invoke" or "event: run.completed" in answer.text
            return answer.status_code, "" if answer.status_code == 200 and whole else answer.text

        assert Counter(threads.map(ask, range(500))) == {(200, ""): 500}
        assert client.get("/ready").json()["database"]["status"] == "ok"
        assert len(client.get("/v1/runs", params={"status": "succeeded", "limit": 100}).json()["data"]) == 100
    assert "prepared statement" not in service.log.read_text()


def test_pooler_refusals_are_reported_in_words(server: Postgres, scratch: Path) -> None:
    """Cover an unknown database and a stopped server: PgBouncer has one SQLSTATE for both, with different messages."""
    with bouncer(scratch, server, named="postgres") as port:
        url = server.url.replace(str(server.port), str(port)).replace("postgresql:", "postgresql+psycopg:")
        with closing(Database(url, pool_size=2)) as made:
            assert _cause(made.engine) == ""
            unknown = sa.create_engine(made.engine.url.set(database="of-nobody"))
            assert _cause(unknown) == "the pooler has no such database in its [databases]"
            server.stop()
            try:
                causes = {_cause(made.engine) for _ in range(3)}
            finally:
                server.start()
    assert any(cause.startswith("the pooler ") for cause in causes), causes


def _cause(engine: sa.Engine) -> str:
    """Why a statement on a connection of its own fails; empty: it does not."""
    try:
        with engine.connect() as connection:
            connection.execute(sa.text("SELECT 1"))
    except sa.exc.DBAPIError as error:
        return cause_of(error)
    return ""
