"""Clients that stop in the middle, of asking or of reading: through nginx they hold no thread of a replica."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import httpx2
import pytest

from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.nginx.edge import Edge

MANY = 200  # far more than there are threads
INVOKE = b"POST /v1/agents/assistant/invoke HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
HALVES = {
    "silence": b"",
    "lone line break": b"\r\n",
    "half a head": b"GET /health HTTP/1.1\r\nHost:",
    "a head without end": b"GET /health HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 15_000,
    "half a body": INVOKE + b"Content-Length: 1000\r\n\r\n{",
    "half a chunk": INVOKE + b"Transfer-Encoding: chunked\r\n\r\n64\r\n{",
    "expect": INVOKE + b"Expect: 100-continue\r\nContent-Length: 1000\r\n\r\n",
    "upgrade": INVOKE + b"Upgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1000\r\n\r\n{",
}


@pytest.fixture(scope="module")
def slipway(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "8", "LIMIT_LOGIN": "1000/minute"}
    with slipway_server(scratch / "rude", redis_server.url, model.url, **settings) as server:
        yield server


@pytest.fixture(scope="module")
def edge(slipway: Slipway, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    """Nginx in front of one replica, which it knows twice."""
    with Edge(tmp_path_factory.mktemp("rude"), [slipway.port] * 2) as edge:
        yield edge


@pytest.fixture
def token(slipway: Slipway, model: Model) -> Iterator[str]:
    model.reset()
    with closing(slipway.client()) as client:
        yield client.headers["Authorization"]


def connect(edge: Edge, stack: ExitStack, data: bytes, receives: int | None = None) -> socket.socket:
    """Open a connection that has sent `data` and has a receive buffer of this size."""
    sock = stack.enter_context(socket.socket())
    if receives is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    sock.connect(("127.0.0.1", edge.port))
    sock.sendall(data)
    return sock


def assert_all_is_well(edge: Edge, token: str) -> None:
    assert edge.http.get("/health").status_code == 200
    body = {"username": "demo", "password": "demo-password"}
    assert edge.http.post("/v1/auth/login", json=body).status_code == 200
    asked = edge.http.post(
        "/v1/agents/assistant/invoke", json={"input": "What time is it?"}, headers={"Authorization": token}
    )
    assert asked.status_code == 200


@pytest.mark.parametrize("half", HALVES)
def test_incomplete_request_reaches_no_replica(edge: Edge, slipway: Slipway, token: str, half: str) -> None:
    with ExitStack() as stack:
        for _ in range(MANY):
            connect(edge, stack, HALVES[half])
        assert_all_is_well(edge, token)


def test_clients_that_do_not_read_a_long_answer(edge: Edge, slipway: Slipway, token: str) -> None:
    assert len(httpx2.get(f"{slipway.url}/openapi.json", timeout=30).content) > 30_000
    with ExitStack() as stack:
        for _ in range(MANY):
            connect(edge, stack, b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n", receives=1024)
        assert_all_is_well(edge, token)


def test_clients_that_do_not_read_their_stream(edge: Edge, token: str) -> None:
    """Check that long-request places run out before threads do: an unread stream holds a thread."""
    body = json.dumps({"input": "[offline tokens=300 token_ms=20] Long.", "cache": "bypass"}).encode()
    head = INVOKE.replace(b"invoke", b"stream") + b"Authorization: %b\r\nContent-Length: %d\r\n\r\n"
    with ExitStack() as stack:
        for _ in range(40):
            connect(edge, stack, head % (token.encode(), len(body)) + body, receives=1024)
        assert edge.http.get("/health").status_code == 200
        login = {"username": "demo", "password": "demo-password"}
        assert edge.http.post("/v1/auth/login", json=login).status_code == 200
