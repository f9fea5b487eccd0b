"""Malformed, incomplete and oversized HTTP, sent byte by byte to a real Gunicorn."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.web.gunicorn_worker import SILENT_SECONDS
from tests.conftest import Model, RedisServer, Slipway, slipway_server

LOGIN = b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
CHUNKED = LOGIN + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def house(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """One worker of a few threads: whoever holds one up is noticed."""
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "8"}
    with slipway_server(scratch / "framing", redis_server.url, model.url, **settings) as server:
        workers = server.workers()
        yield server
        assert server.workers() == workers, "the worker died"


def connect(server: Slipway, data: bytes, timeout: float = 15) -> socket.socket:
    """A connection that has sent `data`, as far as it was taken."""
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=timeout)
    with suppress(OSError):  # it may have answered already, and read no more
        sock.sendall(data)
    return sock


def answer_to(sock: socket.socket) -> bytes:
    """All that comes back until the server closes. A time-out fails the test: it is a hang."""
    with sock:
        found = b""
        while data := sock.recv(65_536):
            found += data
        return found


def problem_of(answer: bytes) -> dict[str, object]:
    """The problem of a raw answer, which must be whole."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert headers["content-type"] == "application/problem+json", answer
    assert len(body) == int(headers["content-length"])
    problem: dict[str, object] = json.loads(body)
    assert status.split(" ")[1] == str(problem["status"])
    assert problem["request_id"] == headers["x-request-id"] != ""
    assert {"type", "title", "detail", "instance", "code"} <= set(problem)
    return problem


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01\x02\x03\r\n\r\n", 400),
        (b"hello\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"x" * 500 + b"\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno colon\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nb\x00d: 1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbad: a\x00b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 400),
        (b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nbig: " + b"x" * 20_000 + b"\r\n\r\n", 431),
        (LOGIN + b"Content-Length: -1\r\n\r\n", 400),
        (LOGIN + b"Content-Length: 1, 2\r\n\r\nab", 400),
        (LOGIN + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (LOGIN + b"Content-Length: 0x2\r\n\r\n{}", 400),
        (LOGIN + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (LOGIN + b"Transfer-Encoding: banana\r\n\r\n", 400),
        (LOGIN + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
        (CHUNKED + b"zz\r\n", 400),
        (CHUNKED + b"-2\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"2\r\n{}xx0\r\n\r\n", 400),
        (CHUNKED + b"2;a=\x01\r\n{}\r\n0\r\n\r\n", 400),
        (CHUNKED + b"f" * 20_000, 400),
        (CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer\r\n\r\n", 400),
        (CHUNKED + b"ffffffffffffff\r\n" + b"x" * (2 * MIB), 413),
        (LOGIN + b"Content-Length: 99999999999999999999\r\n\r\n", 413),
        (LOGIN + b"Content-Length: 8000000\r\n\r\n" + b"x" * 8_000_000, 413),
    ],
    ids=lambda value: repr(value[-60:])[2:60] if isinstance(value, bytes) else None,
)
def test_malformed_http_is_a_problem(house: Slipway, data: bytes, status: int) -> None:
    problem = problem_of(answer_to(connect(house, data)))
    assert problem["status"] == status
    assert house.log.read_text().count(f'"{problem["request_id"]}"') == 1  # its line in the log


@pytest.mark.parametrize("header", [b"SCRIPT_NAME: /x", b"PATH_INFO: /health"])
def test_a_client_on_this_machine_sets_no_path(house: Slipway, header: bytes) -> None:
    """By default Gunicorn takes these headers of anybody on loopback for a proxy's word."""
    answer = answer_to(connect(house, b"GET /x/health HTTP/1.0\r\nHost: x\r\n" + header + b"\r\n\r\n"))
    assert answer.split(b" ")[1] == b"404"


@pytest.mark.parametrize("line", [b"X-Big: " + b"x" * (16 * 1024 - 9), b"X-Big: " + b"x" * (16 * 1024 - 8)])
def test_a_header_may_have_16_kib(house: Slipway, line: bytes) -> None:
    """With its name and its line break, as nginx counts too."""
    answer = answer_to(connect(house, b"GET /health HTTP/1.0\r\nHost: x\r\n" + line + b"\r\n\r\n"))
    fits = len(line) + 2 <= 16 * 1024
    assert answer.split(b" ")[1] == (b"200" if fits else b"431")
    assert fits or problem_of(answer)["code"] == "headers_too_large"


def test_too_many_headers_are_a_problem(house: Slipway) -> None:
    """By their number or by their size: which limit is met first depends on how the bytes arrive."""
    data = b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 500 + b"\r\n"
    problem = problem_of(answer_to(connect(house, data)))
    assert problem["status"] in (400, 431)
    assert house.log.read_text().count(f'"{problem["request_id"]}"') == 1


def test_the_clients_request_id_is_kept(house: Slipway) -> None:
    data = CHUNKED.replace(b"Host: x", b"Host: x\r\nX-Request-ID: mine-17") + b"zz\r\n"
    problem = problem_of(answer_to(connect(house, data)))
    assert (problem["request_id"], problem["instance"]) == ("mine-17", "/v1/auth/login")


@pytest.mark.parametrize(
    "data", [LOGIN + b"Content-Length: 100\r\n\r\n{}", CHUNKED + b"64\r\n{}", CHUNKED + b"2\r\n{}\r\n0\r\n"]
)
def test_a_body_that_breaks_off(house: Slipway, data: bytes) -> None:
    sock = connect(house, data)
    sock.shutdown(socket.SHUT_WR)
    assert problem_of(answer_to(sock))["status"] == 400


def test_a_request_that_breaks_off_in_its_head_leaves_nothing(house: Slipway) -> None:
    for data in (b"", b"\r\n", b"GET", b"GET / HTTP/1.1\r\nHos"):
        sock = connect(house, data)
        sock.shutdown(socket.SHUT_WR)
        assert answer_to(sock) == b""


def test_expect_100_continue_is_answered(house: Slipway) -> None:
    body = b'{"username": "demo", "password": "demo-password"}'
    head = LOGIN + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connect(house, head) as sock:
        assert sock.recv(100).startswith(b"HTTP/1.1 100 ")
        sock.sendall(body)
        assert b" 200 OK" in sock.recv(65_536)


def test_a_body_that_comes_in_drops(house: Slipway) -> None:
    body = b'{"username": "demo", "password": "demo-password"}'
    with connect(house, LOGIN + b"Content-Length: %d\r\n\r\n" % len(body)) as sock:
        for byte in body:
            sock.sendall(bytes([byte]))
            time.sleep(0.01)
        assert b" 200 OK" in sock.recv(65_536)


@pytest.mark.slow  # as long as a client may be silent
def test_clients_that_fall_silent_within_a_request_give_their_threads_back(house: Slipway) -> None:
    half_body = LOGIN + b"Content-Length: 100\r\n\r\n{"
    halves = (LOGIN, half_body, CHUNKED + b"5\r\n{", CHUNKED + b"ffffffffffffffff\r\n{")
    socks = [connect(house, half, timeout=SILENT_SECONDS + 15) for half in halves for _ in range(2)]
    answers = [answer_to(sock) for sock in socks]
    assert {answer[9:12] for answer in answers} == {b"", b"400"}  # of a head, nothing can be said
    assert answer_to(connect(house, b"GET /health HTTP/1.0\r\n\r\n"))[9:12] == b"200"
    assert b"Traceback" not in house.log.read_bytes()
