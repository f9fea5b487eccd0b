from __future__ import annotations

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName

from service.web.arrival import Connection
from service.web.departure import Outgoing
from service.web.worker import Worker

Wire = tuple[socket.socket, socket.socket]


@pytest.fixture
def wire() -> Iterator[Wire]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, theirs


def answer(wire: Wire, method: str = "GET", version: tuple[int, int] = (1, 1)) -> Outgoing:
    request = SimpleNamespace(method=method, version=version, should_close=lambda: version == (1, 0))
    return Outgoing(request, wire[0], Config())


def sent(wire: Wire) -> bytes:
    wire[0].shutdown(socket.SHUT_WR)
    return b"".join(iter(lambda: wire[1].recv(65_536), b""))


def said(wire: Wire) -> tuple[list[str], bytes]:
    head, _, body = sent(wire).partition(b"\r\n\r\n")
    return [
        line for line in head.decode("latin-1").split("\r\n") if not line.startswith(("Server", "Date"))
    ], body


def test_head_and_body(wire: Wire) -> None:
    one = answer(wire)
    one.start_response(
        "200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5"), ("X-Two", "a: b\xe9")]
    )
    one.write(b"hello")
    one.close()
    assert said(wire) == (
        [
            "HTTP/1.1 200 OK",
            "Connection: keep-alive",
            "Content-Type: text/plain",
            "Content-Length: 5",
            "X-Two: a: bé",
        ],
        b"hello",
    )
    assert not one.should_close()


def test_no_more_than_was_announced(wire: Wire) -> None:
    one = answer(wire)
    one.start_response("200 OK", [("Content-Length", "3")])
    one.write(b"hello")
    one.write(b"more")
    one.close()
    assert said(wire)[1] == b"hel"


def test_chunks(wire: Wire) -> None:
    one = answer(wire)
    one.start_response("200 OK", [])
    for part in (b"one", b"", b"t" * 17):
        one.write(part)
    one.close()
    assert said(wire) == (
        ["HTTP/1.1 200 OK", "Connection: keep-alive", "Transfer-Encoding: chunked"],
        b"3\r\none\r\n11\r\n" + b"t" * 17 + b"\r\n0\r\n\r\n",
    )


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
def test_a_head_alone(wire: Wire, method: str, status: str) -> None:
    one = answer(wire, method)
    one.start_response(status, [("X-One", "1")])
    one.write(b"no body goes with this")
    one.close()
    assert said(wire) == ([f"HTTP/1.1 {status}", "Connection: keep-alive", "X-One: 1"], b"")


def test_a_204_has_no_length(wire: Wire) -> None:
    one = answer(wire)
    one.start_response("204 No Content", [("Content-Length", "0"), ("X-One", "1")])
    one.close()
    assert said(wire) == (["HTTP/1.1 204 No Content", "Connection: keep-alive", "X-One: 1"], b"")


def test_to_an_old_client(wire: Wire) -> None:
    one = answer(wire, version=(1, 0))
    one.start_response("200 OK", [])
    one.write(b"until it closes")
    one.close()
    assert said(wire) == (["HTTP/1.0 200 OK", "Connection: close"], b"until it closes")


def test_what_is_the_server_s_to_say_is_left_out(wire: Wire) -> None:
    one = answer(wire)
    one.start_response(
        "200 OK", [("Connection", "close"), ("Server", "other"), ("Content-Length", "2"), ("X-One", "1")]
    )
    one.write(b"ok")
    assert said(wire)[0] == ["HTTP/1.1 200 OK", "Connection: keep-alive", "Content-Length: 2", "X-One: 1"]


@pytest.mark.parametrize(
    "header",
    [
        ("X-One", "1\r\nX-Two: 2"),
        ("X-One", "1\nX-Two: 2"),
        ("X-One", "1\r\n\r\nbody"),
        ("X-One", "\x00"),
        ("X-One", "€"),
    ],
)
def test_a_value_that_would_end_its_line(wire: Wire, header: Any) -> None:
    one = answer(wire)
    with pytest.raises(InvalidResponseHeader):
        one.start_response("200 OK", [("X-Nought", "0"), header])
    assert sent(wire) == b""


@pytest.mark.parametrize("name", ["X One", "X-One\r\nX-Two", "", "Ü"])
def test_a_name_that_is_none(wire: Wire, name: str) -> None:
    one = answer(wire)
    with pytest.raises(InvalidResponseHeaderName):
        one.start_response("200 OK", [(name, "1")])
    assert sent(wire) == b""


# --- an app that fails on the way ---------------------------------------------------------------


def served(wire: Wire, app: Any) -> bool:
    """Whether the connection may be kept."""
    conn = Connection(Config(), wire[0], ("127.0.0.1", 1), ("127.0.0.1", 2))
    conn.seen = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    conn.init()
    worker: Any = SimpleNamespace(alive=True, max_keepalived=1, cfg=conn.cfg, wsgi=app)
    return Worker.handle_request(worker, next(conn.parser), conn)


class Parts:
    def __init__(self, *parts: bytes) -> None:
        self.closed, self._parts = False, parts

    def __iter__(self) -> Iterator[bytes]:
        yield from self._parts
        raise RuntimeError("the app is broken")

    def close(self) -> None:
        self.closed = True


def test_an_answer_that_breaks_off_is_not_ended(wire: Wire) -> None:
    parts = Parts(b"one")
    assert not served(wire, lambda environ, start: start("200 OK", []) and parts)
    assert parts.closed and said(wire)[1] == b"3\r\none\r\n"


def test_one_that_had_not_begun_may_still_be_an_error(wire: Wire) -> None:
    parts = Parts()
    with pytest.raises(RuntimeError):
        served(wire, lambda environ, start: start("200 OK", []) and parts)
    assert parts.closed and sent(wire) == b""
