"""Answers on the transport: broken, late, too large, compressed."""

from __future__ import annotations

import gzip
import time

import httpx2
import pytest

from service.llm.transport import ModelTransport, carrying
from service.llm.wire import AnswerRefused
from tests.llm.conftest import a_call
from tests.llm.posting import client, post
from tests.llm.wire_server import Exchange, WireServer, chunk, head, silent, whole

__all__ = ["client"]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"", httpx2.RemoteProtocolError),
        (b"garbage\r\n\r\n", httpx2.RemoteProtocolError),
        (head(200, 10) + b"half", httpx2.RemoteProtocolError),
        (head(200, None) + chunk(b"half"), httpx2.RemoteProtocolError),
        (head(200, None) + b"not a chunk size\r\n", httpx2.RemoteProtocolError),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            httpx2.RemoteProtocolError,
        ),
    ],
)
def test_broken_answers_are_errors_and_cost_no_place(
    client: httpx2.Client, server: WireServer, answer: bytes, expected: type[Exception]
) -> None:
    def broken(exchange: Exchange) -> None:
        exchange.send(answer)
        exchange.close()

    server.script = [broken] * 3
    for _ in range(3):  # one more than there are places
        with pytest.raises(expected):
            post(client, server)
    assert post(client, server).status_code == 200


@pytest.mark.parametrize("lines", [b"x: " + b"a" * 200_000, b"x: a\r\n" * 40_000])
def test_a_head_without_end_is_given_up(client: httpx2.Client, server: WireServer, lines: bytes) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 OK\r\n" + lines)
        exchange.wait_for_end()

    server.script = [endless]
    with pytest.raises(httpx2.RemoteProtocolError):
        post(client, server)
    assert server.hung_up.wait(30)


@pytest.mark.parametrize("framing", [None, 10_000_000])
def test_an_answer_that_is_too_large_is_given_up(
    client: httpx2.Client, server: WireServer, framing: int | None
) -> None:
    def endless(exchange: Exchange) -> None:
        exchange.send(head(200, framing))
        for _ in range(100):
            piece = b"x" * 100_000
            exchange.send(piece if framing else chunk(piece))

    def trailers(exchange: Exchange) -> None:
        exchange.send(head(200, None) + b"0\r\n")
        for _ in range(100):
            exchange.send(b"x: " + b"a" * 50_000 + b"\r\n")

    for answer in (endless, trailers, endless):
        call = a_call()
        call.answer_bytes = 1_000_000
        server.script = [answer]
        with pytest.raises(httpx2.RemoteProtocolError), carrying(call):
            post(client, server)
    assert post(client, server).status_code == 200


def test_a_refusal_half_way_through_the_request_is_read(client: httpx2.Client, server: WireServer) -> None:
    server.script = [whole({"type": "error"}, status=413, headers="connection: close\r\n")]
    assert client.post(server.url, content=b"x" * 3_000_000).status_code == 413


def test_silence_is_a_read_timeout(client: httpx2.Client, server: WireServer) -> None:
    server.script = [silent]
    with pytest.raises(httpx2.ReadTimeout):
        client.post(server.url, timeout=httpx2.Timeout(5, read=0.1))
    assert server.hung_up.wait(30)


def test_late_answer_is_a_read_timeout(client: httpx2.Client, server: WireServer) -> None:
    """However long sending might have taken."""

    def late(exchange: Exchange) -> None:
        time.sleep(1)
        whole({"type": "message"})(exchange)

    server.script = [late]
    with pytest.raises(httpx2.ReadTimeout):
        client.post(server.url, timeout=httpx2.Timeout(5, read=0.1))


def test_deadline_of_the_call_bounds_each_piece(client: httpx2.Client, server: WireServer) -> None:
    def slow(exchange: Exchange) -> None:
        time.sleep(0.7)
        exchange.send(head(200, 2) + b"1")
        time.sleep(0.7)
        exchange.send(b"2")

    server.script = [slow]
    with carrying(a_call(1.0)), pytest.raises(httpx2.ReadTimeout):
        post(client, server)


def test_many_short_waits_do_not_outlast_the_call(client: httpx2.Client, server: WireServer) -> None:
    def trickle(exchange: Exchange) -> None:
        exchange.send(head(200, 1_000_000))
        while True:
            exchange.send(b".")
            time.sleep(0.02)

    server.script = [trickle]
    with carrying(a_call(1.0)), pytest.raises(httpx2.ReadTimeout):
        post(client, server)
    server.script = [silent]
    with carrying(a_call(1.0)), pytest.raises(httpx2.ReadTimeout):
        client.post(server.url, timeout=None)


@pytest.mark.parametrize("coding", ["gzip", "br", "deflate", "zstd", "GZIP"])
def test_compressed_answer_is_refused_unread(client: httpx2.Client, server: WireServer, coding: str) -> None:
    packed = head(200, None, f"content-encoding: {coding}\r\n") + chunk(gzip.compress(b"text")) + b"0\r\n\r\n"
    for _ in range(3):  # one more than there are places
        server.script = [lambda exchange: exchange.send(packed)]
        with pytest.raises(AnswerRefused):
            post(client, server)
    error = head(429, None, f"content-encoding: {coding}\r\nretry-after: 3\r\n") + chunk(b"packed")
    server.script = [lambda exchange: exchange.send(error)]
    answer = post(client, server)
    assert (answer.status_code, answer.headers["retry-after"], answer.content) == (429, "3", b"")
    assert post(client, server).status_code == 200


def test_body_is_read_once_and_never_after_close(server: WireServer) -> None:
    server.script = [whole(b"plain", headers="content-encoding: identity\r\n"), whole(b"plain")]
    with httpx2.Client(transport=ModelTransport(1)) as client:
        for text in ("plain", "plain"):
            response = client.send(client.build_request("POST", server.url, content=b""), stream=True)
            assert [response.read(), response.read(), response.text] == [text.encode(), text.encode(), text]
            assert response.is_closed
        closed = client.send(client.build_request("POST", server.url, content=b""), stream=True)
        closed.close()
        with pytest.raises(httpx2.StreamClosed):
            closed.read()
