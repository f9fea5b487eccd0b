from __future__ import annotations

import threading
from contextlib import nullcontext

import httpx2
import pytest

from service.llm import transport as transport_module
from service.llm.transport import ModelTransport, carrying
from tests.llm.conftest import a_call
from tests.llm.posting import client, post
from tests.llm.wire_server import Exchange, WireServer, chunk, close, head, whole

__all__ = ["client"]


def test_connections_are_kept_and_used_again(client: httpx2.Client, server: WireServer) -> None:
    assert [post(client, server).json()["type"] for _ in range(3)] == ["message"] * 3
    assert server.connections == 1


def test_the_connection_used_last_is_used_next(server: WireServer) -> None:
    with httpx2.Client(transport=ModelTransport(3), timeout=5) as client:
        with client.stream("POST", server.url) as outer:
            with client.stream("POST", server.url) as inner:
                inner.read()
            outer.read()
        post(client, server)
    assert server.requests[2].conn is server.requests[0].conn


def test_a_body_cut_anywhere_arrives_whole(client: httpx2.Client, server: WireServer) -> None:
    answer = head(200, None) + chunk(b"one ") + chunk("zwölf ".encode()) + chunk(b"three") + b"0\r\n\r\n"

    def drip(exchange: Exchange) -> None:
        for index in range(len(answer)):
            exchange.send(answer[index : index + 1])

    server.script = [drip]
    assert post(client, server).text == "one zwölf three"
    post(client, server)
    assert server.connections == 1


def test_pieces_are_handed_on_as_they_arrive(client: httpx2.Client, server: WireServer) -> None:
    seen = threading.Event()

    def two_pieces(exchange: Exchange) -> None:
        exchange.send(head(200, None) + chunk(b"first"))
        assert seen.wait(30)
        exchange.send(chunk(b"second") + b"0\r\n\r\n")

    server.script = [two_pieces]
    with client.stream("POST", server.url) as response:
        pieces = response.iter_raw()
        assert next(pieces) == b"first"
        seen.set()
        assert next(pieces) == b"second"


def test_a_body_may_end_with_the_connection(client: httpx2.Client, server: WireServer) -> None:
    def old_style(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        exchange.close()

    server.script = [old_style]
    assert post(client, server).content == b"all of it"
    post(client, server)
    assert server.connections == 2


def test_interim_answers_are_passed_over(client: httpx2.Client, server: WireServer) -> None:
    def interim(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 103 Early Hints\r\nretry-after: 9\r\n\r\n" + head(200, 2) + b"ok")

    server.script = [interim]
    response = post(client, server)
    assert (response.status_code, response.content, "retry-after" in response.headers) == (200, b"ok", False)


def test_only_headers_that_are_read_are_kept(client: httpx2.Client, server: WireServer) -> None:
    server.script = [whole({}, headers="Retry-After: 9\r\nx-other: \xe9\r\n")]
    response = post(client, server)
    assert response.headers["retry-after"] == "9"
    assert set(response.headers) == {"request-id", "content-type", "retry-after"}


def test_connection_close_is_obeyed(client: httpx2.Client, server: WireServer) -> None:
    server.script = [whole({}, headers="connection: close\r\n")]
    post(client, server)
    post(client, server)
    assert server.connections == 2


def test_surplus_answer_closes_the_connection(client: httpx2.Client, server: WireServer) -> None:
    def two_answers(exchange: Exchange) -> None:
        exchange.send(head(200, 2) + b"ok" + head(200, 4) + b"evil")

    server.script = [two_answers]
    assert post(client, server).content == b"ok"
    assert post(client, server).json()["type"] == "message"
    assert server.connections == 2


def test_a_connection_closed_while_idle_is_not_used(client: httpx2.Client, server: WireServer) -> None:
    left = threading.Event()

    def answer_and_leave(exchange: Exchange) -> None:
        whole({})(exchange)
        exchange.close()
        left.set()

    server.script = [answer_and_leave]
    post(client, server)
    assert left.wait(30)
    assert post(client, server).json()["type"] == "message"
    assert (server.connections, len(server.requests)) == (2, 2)


def test_bytes_on_an_idle_connection_are_not_an_answer(client: httpx2.Client, server: WireServer) -> None:
    idle, said = threading.Event(), threading.Event()

    def bored(exchange: Exchange) -> None:
        whole({})(exchange)
        assert idle.wait(30)
        exchange.send(head(408, 0))
        exchange.close()
        said.set()

    server.script = [bored]
    post(client, server)
    idle.set()
    assert said.wait(30)
    assert post(client, server).status_code == 200


def test_failed_idle_connection_is_replaced_once_for_a_free_call(
    client: httpx2.Client, server: WireServer
) -> None:
    post(client, server)
    with carrying(a_call()):
        server.script = [close]
        assert post(client, server).json()["type"] == "message"
        server.script = [close, close]
        with pytest.raises(httpx2.RemoteProtocolError):
            post(client, server)
    assert len(server.requests) == 5


@pytest.mark.parametrize("known", [True, False])
def test_possibly_charged_request_is_not_sent_again(
    client: httpx2.Client, server: WireServer, known: bool
) -> None:
    call = a_call()
    call.progress.billable = True
    post(client, server)
    server.script = [close]
    with pytest.raises(httpx2.RemoteProtocolError), carrying(call) if known else nullcontext():
        post(client, server)
    assert len(server.requests) == 2


def test_a_new_connection_that_fails_is_not_replaced(client: httpx2.Client, server: WireServer) -> None:
    server.script = [close]
    with pytest.raises(httpx2.RemoteProtocolError):
        post(client, server)
    assert len(server.requests) == 1


def test_a_kept_connection_that_had_begun_to_answer_is_not_replaced(
    client: httpx2.Client, server: WireServer
) -> None:
    def half_a_head(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 O")
        exchange.close()

    post(client, server)
    server.script = [half_a_head]
    with pytest.raises(httpx2.RemoteProtocolError):
        post(client, server)
    assert len(server.requests) == 2


def test_idle_connections_expire(
    client: httpx2.Client, server: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    post(client, server)
    monkeypatch.setattr(transport_module, "IDLE_SECONDS", 0.0)
    post(client, server)
    assert server.connections == 2


def test_refused_connection_is_a_connect_error(client: httpx2.Client, server: WireServer) -> None:
    server.stop()
    with pytest.raises(httpx2.ConnectError):
        post(client, server)


def test_the_number_of_connections_is_bounded(client: httpx2.Client, server: WireServer) -> None:
    with (
        client.stream("POST", server.url),
        client.stream("POST", server.url),
        pytest.raises(httpx2.PoolTimeout),
    ):
        post(client, server)
    assert [post(client, server).status_code for _ in range(3)] == [200] * 3
    assert server.connections == 2


def test_header_values_cannot_smuggle_lines(client: httpx2.Client, server: WireServer) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        client.post(server.url, headers={"x": "a\r\nhost: evil"})
    assert server.requests == []


def test_a_closed_transport_keeps_nothing(server: WireServer) -> None:
    transport = ModelTransport(2)
    client = httpx2.Client(transport=transport, timeout=5)
    with client.stream("POST", server.url) as response:
        transport.close()
        response.read()
    assert post(client, server).status_code == 200
    assert server.connections == 2
