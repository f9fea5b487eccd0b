"""The delaying proxy: answers in order, and exact counts of trips over a real Redis and a real PostgreSQL."""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
import redis

from benchmarks.processes import postgres_server, redis_server
from benchmarks.proxy import Proxy, proxied

PIECES = 400


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("parts")
    with redis_server(folder) as (redis_port, _), postgres_server(folder) as (postgres_port, _):
        targets = {"redis": redis_port, "postgres": postgres_port}
        with proxied(folder, targets, delay_ms=1) as proxy:
            yield proxy


@pytest.fixture
def database(parts: Proxy) -> Iterator[psycopg.Connection]:
    url = f"postgresql://bench@127.0.0.1:{parts.ports['postgres']}/postgres"
    with psycopg.connect(url, autocommit=True, prepare_threshold=None) as connection:
        yield connection


@pytest.fixture
def store(parts: Proxy) -> Iterator[redis.Redis]:
    with redis.Redis(port=parts.ports["redis"], decode_responses=True) as client:
        client.ping()
        yield client


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Proxy, socket.socket, socket.socket]]:
    """A proxy with both ends of one connection through it."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        proxy = stack.enter_context(proxied(tmp_path, {"far": listener.getsockname()[1]}, delay_ms=2))
        near = stack.enter_context(socket.create_connection(("127.0.0.1", proxy.ports["far"]), 5))
        far = stack.enter_context(listener.accept()[0])
        for end in (near, far):
            end.settimeout(20)
        yield proxy, near, far


def read(end: socket.socket, size: int) -> bytes:
    seen = b""
    while len(seen) < size:
        data = end.recv(65_536)
        assert data, "it ended early"
        seen += data
    return seen


def test_both_directions_keep_their_order(told: tuple[Proxy, socket.socket, socket.socket]) -> None:
    proxy, near, far = told
    pieces = [f"{n:06d}".encode() * random.randrange(1, 2_000) for n in range(PIECES)]
    whole = b"".join(pieces)

    def send(end: socket.socket) -> None:
        for n, piece in enumerate(pieces):
            if n % 40 == 0:  # the answers that wait have been told to come later than those after them
                proxy.tell(delay_ms=random.choice((0, 1, 5)))
            end.sendall(piece)

    for sender, reader in ((near, far), (far, near)):
        writing = threading.Thread(target=send, args=(sender,))
        writing.start()
        assert read(reader, len(whole)) == whole
        writing.join()


def test_an_answer_before_the_end_is_not_lost(told: tuple[Proxy, socket.socket, socket.socket]) -> None:
    _, near, far = told
    far.sendall(b"last words")
    far.close()
    assert read(near, 10) == b"last words"
    assert near.recv(1) == b""


def test_an_answer_comes_after_the_delay_only(told: tuple[Proxy, socket.socket, socket.socket]) -> None:
    proxy, near, far = told
    proxy.tell(delay_ms=60_000)
    near.sendall(b"question")
    assert read(far, 8) == b"question"  # the question is not delayed
    far.sendall(b"answer")
    near.settimeout(0.3)
    with pytest.raises(TimeoutError):
        near.recv(1)
    assert proxy.trips() == {"far": 0}  # it has not arrived


def test_commands_of_redis_are_a_trip_each_and_a_pipeline_is_one(parts: Proxy, store: redis.Redis) -> None:
    before = parts.trips()["redis"]
    for n in range(7):
        store.set(f"n{n}", n)
    assert parts.trips()["redis"] - before == 7
    pipe = store.pipeline(transaction=False)
    for n in range(50):
        pipe.get(f"n{n % 7}")
    assert pipe.execute()[:3] == ["0", "1", "2"]
    assert parts.trips()["redis"] - before == 8
    store.set("large", "x" * 3_000_000)
    assert len(store.get("large")) == 3_000_000  # it comes in many pieces
    assert parts.trips()["redis"] - before == 10


def test_statements_are_a_trip_each_and_a_pipeline_is_one(parts: Proxy, database: psycopg.Connection) -> None:
    before = parts.trips()["postgres"]
    for n in range(7):
        assert database.execute("SELECT %s::int", (n,)).fetchone() == (n,)
    assert parts.trips()["postgres"] - before == 7
    with database.pipeline():
        found = [database.execute("SELECT %s::int", (n,)) for n in range(20)]
    assert [one.fetchone() for one in found] == [(n,) for n in range(20)]
    assert parts.trips()["postgres"] - before == 8
    with database.transaction():
        database.execute("SELECT 1")
    assert parts.trips()["postgres"] - before == 11  # BEGIN and COMMIT are two of them
    large = database.execute("SELECT repeat('x', 3000000)").fetchone()
    assert large is not None and len(large[0]) == 3_000_000
    assert parts.trips()["postgres"] - before == 12


def test_what_is_recorded_says_where_a_trip_begins(parts: Proxy, store: redis.Redis) -> None:
    parts.tell(record=True)
    store.get("a")
    store.get("b")
    bursts = parts.tell(record=False)["record"]
    assert [(part, begins) for _, part, _, begins, _ in bursts] == [("redis", True)] * 2
    assert "\r\nb\r\n" in bursts[1][4]
