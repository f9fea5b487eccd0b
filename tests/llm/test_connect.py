"""Ways to the model: names that are not answered, addresses that are dead, proxies, and a call that is stopped."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from service import errors
from service.infra.http import NoAnswer, SafeClient
from service.llm.claude import ClaudeClient
from service.llm.client import ModelCall
from service.llm.connect import Connector, Origin, Proxy
from service.llm.embeddings import HttpEmbedder
from tests.llm.conftest import MakeClaude, a_call, ask, run
from tests.llm.wire_server import Exchange, WireServer

LONG = 3600.0  # seconds: a test that waits for so long has failed


@pytest.fixture
def silent_dns(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """A resolver that never answers, as `getaddrinfo` meets it; set once it was asked."""
    over, asked = threading.Event(), threading.Event()

    def look_up(*_: object, **__: object) -> list[Any]:
        asked.set()
        assert over.wait(60)
        raise socket.gaierror(socket.EAI_AGAIN, "over")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    yield asked
    over.set()


def named(timeout: float = 0.2) -> ClaudeClient:
    return ClaudeClient("", "https://model.example", LONG, timeout, 4)


@pytest.mark.parametrize("proxy", ["", "http://proxy.example:3128"])
@pytest.mark.parametrize(
    "ask_it",
    [
        lambda claude, call: run(claude.create(ask(), call)),
        lambda claude, call: run(claude.create(ask(stream=True), call)),
        lambda claude, call: claude.count_tokens(ask(), call),
        lambda claude, call: claude.ping(),
        lambda claude, call: claude.list_models(),
        lambda claude, call: claude.submit({"one": ask()}, call),
        lambda claude, call: claude.batch("b", call),
    ],
)
def test_no_way_to_the_model_waits_for_a_silent_resolver(
    silent_dns: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
    proxy: str,
    ask_it: Callable[[ClaudeClient, ModelCall], object],
) -> None:
    monkeypatch.setenv("https_proxy", proxy)
    claude, call = named(), a_call(LONG)
    with pytest.raises(errors.ModelUnavailable):
        ask_it(claude, call)
    assert not call.progress.billable
    claude.close()


def test_an_abort_ends_the_wait_for_a_name(silent_dns: threading.Event) -> None:
    claude, call = named(LONG), a_call(LONG)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lambda: run(claude.create(ask(), call)))
        assert silent_dns.wait(30)
        call.abort()
        with pytest.raises(errors.RunCancelled):
            running.result(60)
    assert not call.progress.billable


def test_embeddings_and_webhooks_do_not_wait_either(silent_dns: threading.Event) -> None:
    asked = HttpEmbedder("https://embed.example/v1/embeddings", "", "m").ask(["text"], 0.2)
    assert asked.vectors is None
    with pytest.raises(NoAnswer):
        SafeClient(allow_private=False, seconds=0.2).post("https://hook.example/", b"{}", {})


@pytest.fixture
def full() -> Iterator[int]:
    """A port whose queue of connections is full: whoever connects waits."""
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for one in (first, second):
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


def test_a_dead_address_leaves_time_for_the_next(
    full: int, server: WireServer, make_claude: MakeClaude, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = int(server.url.rpartition(":")[2])
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in (full, good)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    claude = ClaudeClient("", "http://model.example", LONG, 1.0, 4)
    assert run(claude.create(ask(), a_call()))[1].text == "Good day."
    claude.close()


def test_an_abort_ends_the_wait_for_a_connection(full: int) -> None:
    call = a_call(LONG)

    def connect() -> None:
        Connector().connect(Origin("http", "127.0.0.1", full), call, LONG)

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(connect)
        time.sleep(0.1)
        call.abort()
        with pytest.raises(httpx2.TransportError):
            running.result(60)


def test_a_proxy_opens_a_tunnel_for_https(
    tls_server: WireServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    port = int(tls_server.url.rpartition(":")[2])

    def tunnel(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        with socket.create_connection(("127.0.0.1", port)) as origin:
            pump = threading.Thread(target=_pump, args=(origin, exchange.conn))
            pump.start()
            _pump(exchange.conn, origin)
            pump.join(60)

    proxy = WireServer(tunnel)
    connector = Connector(Proxy.of(proxy.url.replace("://", "://user:p%40ss@")))
    sock = connector.connect(Origin("https", "127.0.0.1", port), a_call(), 5.0)
    sock.sendall(b"POST / HTTP/1.1\r\ncontent-length: 0\r\n\r\n")
    assert sock.recv(100).startswith(b"HTTP/1.1 200")
    sock.close()
    assert proxy.requests[0].head.splitlines()[0] == f"CONNECT 127.0.0.1:{port} HTTP/1.1".encode()
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic dXNlcjpwQHNz"
    proxy.stop()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 407 No\r\n\r\n", b"", b"x" * 100_000, b"HTTP/1.1 502 Bad\r\n\r\n"]
)
def test_a_proxy_that_refuses_costs_nothing(answer: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(exchange: Exchange) -> None:
        exchange.send(answer)
        exchange.close()

    proxy = WireServer(refuse)
    monkeypatch.setenv("https_proxy", proxy.url)
    claude, call = named(5.0), a_call()
    with pytest.raises(errors.ModelUnavailable):
        run(claude.create(ask(), call))
    assert not call.progress.billable
    claude.close()
    proxy.stop()


@pytest.mark.parametrize("url", ["socks5://proxy:1080", "https://proxy:443", "http://"])
def test_other_proxies_are_refused_at_the_start(url: str) -> None:
    with pytest.raises(ValueError, match="http://"):
        Proxy.of(url)


def test_a_proxy_may_be_named_without_its_scheme() -> None:
    assert Proxy.of("proxy.example:3128") == Proxy("proxy.example", 3128)
