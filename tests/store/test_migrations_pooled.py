"""Migrations through a real PgBouncer that gives every transaction another session."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.chaos.conftest import Postgres
from tests.conftest import free_port, process, wait_until
from tests.store.test_migrations_live import ended, has_the_lock, is_whole, migrating, upgrade
from tests.store.traffic import fill, long_reader

pytestmark = [
    pytest.mark.grown,
    pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="no pgbouncer here"),
]
SETTINGS = """
[databases]
* = host=127.0.0.1 port={server} user=slipway
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 4
"""


@pytest.fixture(scope="module")
def postgres(scratch: Path) -> Iterator[Postgres]:
    scratch.chmod(0o755)
    server = Postgres(Path(tempfile.mkdtemp(prefix="pooled", dir=scratch)))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def pooler(postgres: Postgres) -> Iterator[int]:
    """The port of PgBouncer."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="pooler"))
    folder.chmod(0o755)
    settings = folder / "pgbouncer.ini"
    settings.write_text(SETTINGS.format(server=postgres.port, port=port))
    as_nobody = (
        ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"] if os.geteuid() == 0 else []
    )
    with process([*as_nobody, "pgbouncer", "-q", str(settings)]) as child:

        def answers() -> bool:
            assert child.poll() is None, "PgBouncer ended"
            try:
                psycopg.connect(f"postgresql://slipway@127.0.0.1:{port}/postgres").close()
            except psycopg.OperationalError:
                return False
            return True

        wait_until(answers, "PgBouncer")
        yield port
    shutil.rmtree(folder)


def settings_of_sessions(address: str) -> set[tuple[str, str]]:
    """Time-outs on the sessions that the pooler gives to others, asked for more often than there are any."""
    query = "SELECT current_setting('lock_timeout'), current_setting('idle_in_transaction_session_timeout')"
    clients = [psycopg.connect(address) for _ in range(4)]
    try:
        return {client.execute(query).fetchone() or ("", "") for client in clients}
    finally:
        for client in clients:
            client.close()


def test_killed_through_a_pooler_nothing_stays_behind(postgres: Postgres, pooler: int) -> None:
    direct = postgres.create("killed")
    pooled = direct.replace(f":{postgres.port}/", f":{pooler}/")
    upgrade(pooled, "0004")
    fill(direct, 200)
    with long_reader(direct, "ledger") as reader:
        with migrating(pooled) as child:
            wait_until(lambda: has_the_lock(direct), "the lock")
            child.kill()
            child.wait(60)
        wait_until(lambda: not has_the_lock(direct), "the lock is free")
        reader.rollback()
    with migrating(pooled) as child:
        ended(child)
    assert is_whole(direct)
    assert settings_of_sessions(pooled) == {("0", "0")}


def test_two_at_once_through_a_pooler_take_turns(postgres: Postgres, pooler: int) -> None:
    direct = postgres.create("turns")
    pooled = direct.replace(f":{postgres.port}/", f":{pooler}/")
    with migrating(pooled) as one, migrating(pooled) as other:
        told = [line for child in (one, other) for line in ended(child).splitlines() if " up to " in line]
    assert len(told) == len({*told})
    assert is_whole(direct)
    assert not has_the_lock(direct)
