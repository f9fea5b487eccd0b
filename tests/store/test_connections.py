"""Connection pool while the database is away: one thread reconnects, the others wait for that thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest
import sqlalchemy as sa

from service.errors import DatabaseUnavailable
from service.store.connections import Connections
from service.store.database import Database
from tests.chaos.conftest import Postgres
from tests.conftest import wait_until
from tests.exhausted import no_threads

ONE = sa.text("SELECT 1 AS one")


@contextmanager
def front_door(answer: Callable[[socket.socket], object]) -> Iterator[tuple[str, list[socket.socket]]]:
    """A server of the test's own: its URL, and the connections that were made to it."""
    made: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:

        def accept() -> None:
            try:
                while True:
                    connection, _ = server.accept()
                    made.append(connection)
                    answer(connection)
            except OSError:
                return

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"postgresql+psycopg://slipway@127.0.0.1:{server.getsockname()[1]}/postgres", made
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in made:
                connection.close()


def asked(db: Database, pool: ThreadPoolExecutor, times: int, patience: float) -> list[Future[object]]:
    return [pool.submit(db.query, lambda tx: tx.row(ONE), patience=patience) for _ in range(times)]


def test_waiters_fail_when_the_connection_fails() -> None:
    """SQLAlchemy's own pool lets them wait for as long as they may."""
    with (
        front_door(lambda connection: None) as (url, _),
        closing(Database(url, pool_size=1)) as db,
        ThreadPoolExecutor(8) as pool,
    ):
        answers = asked(db, pool, 8, patience=0)
        wait_until(lambda: all(answer.done() for answer in answers), "an answer for each")
        assert {type(answer.exception()) for answer in answers} == {DatabaseUnavailable}


def test_one_of_all_threads_tries_to_connect() -> None:
    with (
        front_door(lambda connection: connection.close()) as (url, made),
        closing(Database(url, pool_size=5)) as db,
        ThreadPoolExecutor(40) as pool,
    ):
        answers = asked(db, pool, 40, patience=2)
        assert {type(answer.exception()) for answer in answers} == {DatabaseUnavailable}
        assert len(made) < 40


def test_waiters_continue_when_the_database_is_back(postgres: Postgres) -> None:
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    with closing(Database(url, pool_size=2, patience=30)) as db, ThreadPoolExecutor(40) as pool:
        db.ping()
        with postgres.read_only():
            with pytest.raises(DatabaseUnavailable):
                db.ping()
            answers = asked(db, pool, 40, patience=30)
        assert [answer.result() for answer in answers] == [{"one": 1}] * 40


def test_pooled_connections_serve_when_no_new_one_opens(postgres: Postgres) -> None:
    """As where the server takes no more of them."""
    postgres.sql("CREATE ROLE narrow LOGIN CONNECTION LIMIT 2")
    url = postgres.url.replace("postgresql://slipway", "postgresql+psycopg://narrow")
    with closing(Database(url, pool_size=10)) as db, ThreadPoolExecutor(40) as pool:
        answers = asked(db, pool, 200, patience=5)
        assert [answer.result() for answer in answers] == [{"one": 1}] * 200


def test_lease_renewal_precedes_other_waiters(postgres: Postgres) -> None:
    order: list[str] = []
    url = postgres.url.replace("postgresql:", "postgresql+psycopg:")
    with closing(Database(url, pool_size=1)) as db, ThreadPoolExecutor(9) as pool:
        with db.read():
            others = [pool.submit(db.query, lambda tx: order.append("other")) for _ in range(8)]
            lease = pool.submit(db.query, lambda tx: order.append("lease"), priority=True)
            wait_until(lambda: db._connections._priority_waiters == 1, "the lease that waits")
        for answer in (*others, lease):
            answer.result()
    assert order == ["lease"] + ["other"] * 8


def test_outage_without_a_thread_to_reconnect_is_noticed_again() -> None:
    connected = threading.Event()
    connections = Connections(1, 1.0, connected.set, lambda: 0)
    with no_threads():
        connections.lost()
    with connections.slot(priority=False):
        connections.lost()
    assert connected.wait(20)
    connections.close()
