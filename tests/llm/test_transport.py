from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import httpx2
import pytest

from service.llm import transport as transport_module
from service.llm.transport import ModelHttp, ModelTransport, carrying
from service.llm.wire import AnswerRefused
from tests.llm.conftest import a_call
from tests.llm.wire_server import Exchange, WireServer, chunk, head, silent, whole


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(transport=ModelTransport(2), timeout=httpx2.Timeout(5, pool=0.05)) as client:
        yield client


def post(client: httpx2.Client, server: WireServer) -> httpx2.Response:
    return client.post(server.url, content=b"{}")


def close(exchange: Exchange) -> None:
    exchange.close()


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
        assert seen.wait(5)
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
    assert left.wait(5)
    assert post(client, server).json()["type"] == "message"
    assert (server.connections, len(server.requests)) == (2, 2)


def test_bytes_on_an_idle_connection_are_not_an_answer(client: httpx2.Client, server: WireServer) -> None:
    idle, said = threading.Event(), threading.Event()

    def bored(exchange: Exchange) -> None:
        whole({})(exchange)
        assert idle.wait(5)
        exchange.send(head(408, 0))
        exchange.close()
        said.set()

    server.script = [bored]
    post(client, server)
    idle.set()
    assert said.wait(5)
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
    assert server.hung_up.wait(5)


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
    assert server.hung_up.wait(5)


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
    with carrying(a_call(0.3)), pytest.raises(httpx2.ReadTimeout):
        post(client, server)
    server.script = [silent]
    with carrying(a_call(0.1)), pytest.raises(httpx2.ReadTimeout):
        client.post(server.url, timeout=None)


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


def test_the_lean_client_frames_its_requests(server: WireServer) -> None:
    with ModelHttp(ModelTransport(1)) as client:
        for content in (b"", "zwölf".encode(), None):
            given = {"headers": {"X-Name": "value"}, "content": content}
            client.send(client.build_request("POST", server.url, **given))
    address = server.url.partition("//")[2].partition("/")[0]
    heads = [request.head.decode().lower().split("\r\n")[1:] for request in server.requests]
    assert [sorted(lines) for lines in heads] == [
        [f"content-length: {length}", f"host: {address}", "x-name: value"] for length in (0, 6, 0)
    ]
    assert [request.body for request in server.requests] == [b"", "zwölf".encode(), b""]


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
    with ModelHttp(ModelTransport(1)) as client:
        for text in ("plain", "plain"):
            response = client.send(client.build_request("POST", server.url, content=b""), stream=True)
            assert [response.read(), response.read(), response.text] == [text.encode(), text.encode(), text]
            assert response.is_closed
        closed = client.send(client.build_request("POST", server.url, content=b""), stream=True)
        closed.close()
        with pytest.raises(httpx2.StreamClosed):
            closed.read()


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


# --- abort --------------------------------------------------------------------------------------


def test_abort_wakes_a_reader_that_waits_for_the_head(client: httpx2.Client, server: WireServer) -> None:
    post(client, server)  # so that the call rides on a kept connection, which must not be replaced
    server.script = [silent]
    call, failures = a_call(), list[BaseException]()
    asked_before = len(server.requests)

    def wait() -> None:
        try:
            with carrying(call):
                post(client, server)
        except httpx2.HTTPError as error:
            failures.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    server.asked.acquire(timeout=5), server.asked.acquire(timeout=5)
    call.abort()
    waiting.join(5)
    assert not waiting.is_alive() and failures and server.hung_up.wait(5)
    assert (len(server.requests), server.connections) == (asked_before + 1, 1)


def test_abort_before_the_call_sends_nothing(client: httpx2.Client, server: WireServer) -> None:
    call = a_call()
    call.abort()
    with carrying(call), pytest.raises(httpx2.HTTPError):
        post(client, server)


def test_abort_after_the_end_leaves_the_connection_alone(client: httpx2.Client, server: WireServer) -> None:
    call = a_call()
    with carrying(call):
        post(client, server)
    call.abort()
    assert post(client, server).status_code == 200
    assert server.connections == 1


# --- TLS ----------------------------------------------------------------------------------------


def test_tls_is_spoken_and_kept(
    client: httpx2.Client, tls_server: WireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    assert [post(client, tls_server).json()["type"] for _ in range(3)] == ["message"] * 3
    assert tls_server.connections == 1


def test_an_unknown_certificate_is_refused(client: httpx2.Client, tls_server: WireServer) -> None:
    with pytest.raises(httpx2.ConnectError):
        post(client, tls_server)
    assert tls_server.requests == []


def test_abort_wakes_a_reader_under_tls(
    client: httpx2.Client, tls_server: WireServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    tls_server.script = [silent]
    call = a_call()

    def abort() -> None:
        tls_server.asked.acquire(timeout=5)
        call.abort()

    timer = threading.Thread(target=abort)
    timer.start()
    with carrying(call), pytest.raises(httpx2.HTTPError):
        client.post(tls_server.url, timeout=30)
    timer.join(5)
    assert tls_server.hung_up.wait(5)
