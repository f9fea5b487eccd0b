"""Kept connections hold no thread and do not delay the end of a worker."""

from __future__ import annotations

import re
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server

HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
MANY = 40  # far more than there are threads


@pytest.fixture(scope="module")
def house(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    with started(scratch / "keeping", redis_server, model) as server:
        yield server


@pytest.fixture
def ending(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """Start a Slipway that the test ends."""
    with started(scratch / "ending", redis_server, model) as server:
        yield server


def started(home: Path, redis_server: RedisServer, model: Model) -> AbstractContextManager[Slipway]:
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "8", "GRACEFUL_TIMEOUT": "30"}
    return slipway_server(home, redis_server.url, model.url, **settings)


def ask(sock: socket.socket, request: bytes = HEALTH) -> bytes:
    """One answer with its body, which has a length."""
    sock.sendall(request)
    found = b""
    while b"\r\n\r\n" not in found:
        data = sock.recv(65_536)
        assert data, "closed"
        found += data
    head, _, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: *(\d+)", head)
    assert length is not None
    while len(body) < int(length[1]):
        body += sock.recv(65_536)
    return head + b"\r\n\r\n" + body


def connect(stack: ExitStack, server: Slipway, data: bytes = b"") -> socket.socket:
    sock = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=20))
    sock.sendall(data)
    return sock


def test_a_connection_serves_one_request_after_the_other(house: Slipway) -> None:
    with ExitStack() as stack:
        sock = connect(stack, house)
        for _ in range(5):
            answer = ask(sock)
            assert answer.startswith(b"HTTP/1.1 200 ") and b"close" not in answer.lower()
        refused = ask(sock, b"GET /v1/agents HTTP/1.1\r\nHost: x\r\n\r\n")
        assert refused.startswith(b"HTTP/1.1 401 ")
        assert ask(sock).startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in ask(sock, HEALTH[:-2] + b"Connection: close\r\n\r\n").lower()
        assert sock.recv(1) == b""


def test_kept_connections_hold_no_thread(house: Slipway) -> None:
    with ExitStack() as stack:
        kept = [connect(stack, house) for _ in range(MANY)]
        for _ in range(2):
            assert {ask(sock)[:13] for sock in kept} == {b"HTTP/1.1 200 "}
        assert httpx2.get(f"{house.url}/health", timeout=30).status_code == 200


def test_blocked_request_does_not_delay_other_connections(house: Slipway) -> None:
    """Block on a locked database, which the health check does not need."""
    client = house.client()
    locked = sqlite3.connect(house.env["SLIPWAY_HOME"] + "/slipway.db", isolation_level=None)
    answers: list[int] = []

    def write() -> None:
        answers.append(client.post("/v1/sessions", json={"agent": "assistant"}).status_code)

    locked.execute("BEGIN IMMEDIATE")
    try:
        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        for _ in range(5):
            assert httpx2.get(f"{house.url}/health", timeout=30).status_code == 200
        assert answers == []
    finally:
        locked.execute("ROLLBACK")
        locked.close()
    for writer in writers:
        writer.join(20)
    assert set(answers) == {201}


def test_kept_connections_do_not_delay_the_end(ending: Slipway) -> None:
    with ExitStack() as stack:
        kept = [connect(stack, ending) for _ in range(MANY)]
        for sock in kept:
            ask(sock)
        ending.child.terminate()
        ending.child.wait(20)
        assert {sock.recv(1) for sock in kept} == {b""}


@pytest.mark.slow
def test_a_kept_connection_that_stays_silent_is_let_go(house: Slipway) -> None:
    with ExitStack() as stack:
        sock, other = connect(stack, house), connect(stack, house)
        ask(sock)
        assert (sock.recv(1), other.recv(1)) == (b"", b"")
