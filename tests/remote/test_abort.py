"""Exchanges that Slipway ends: at once, wherever they are, and without a word against the host."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.remote.client import FAILURES, Exchange, RemoteClient, RemoteHosts
from service.remote.task import RemoteAnswer, RemoteTask
from tests.conftest import wait_until
from tests.llm.conftest import tls
from tests.llm.wire_server import Exchange as Asked
from tests.llm.wire_server import WireServer, silent, whole
from tests.remote.house import SUCCEEDED, completed, streams, text

__all__ = ["tls"]


def served(handler: Any, context: ssl.SSLContext | None = None) -> Iterator[WireServer]:
    server = WireServer(handler, context)
    yield server
    server.stop()


@pytest.fixture(params=["http", "https"])
def server(
    request: pytest.FixtureRequest, tls: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WireServer]:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    yield from served(silent, tls if request.param == "https" else None)


def client(server: WireServer) -> RemoteClient:
    return RemoteClient(RemoteHosts.of(server.url.partition("//")[2], ""))


def ask(asks: RemoteClient, server: WireServer) -> Exchange:
    body = {"input": "Hello?", "run_id": "run_1"}
    return asks.ask(RemoteTask(server.url, "run_1:ask", "req", body), "post", 20, 20)


def answer(asks: RemoteClient, server: WireServer) -> Any:
    *_, last = ask(asks, server).events(0.2)
    return last


def test_connection_without_an_answer_is_closed(server: WireServer) -> None:
    exchange = ask(client(server), server)
    assert server.asked.acquire(timeout=60)
    exchange.close(cancelled=False)
    assert server.hung_up.wait(60)


def test_connection_in_mid_answer_is_closed(server: WireServer) -> None:
    server.otherwise = streams(text("Well, "), then=silent)
    exchange = ask(client(server), server)
    next(told for told in exchange.events(0.2) if told is not None)
    exchange.close(cancelled=False)
    assert server.hung_up.wait(60)


def test_ended_exchanges_do_not_pause_the_host(server: WireServer) -> None:
    asks = client(server)
    for _ in range(FAILURES + 1):
        exchange = ask(asks, server)
        assert server.asked.acquire(timeout=60)
        exchange.close(cancelled=False)
        wait_until(lambda: all(one.name != "remote-agent" for one in threading.enumerate()), "its thread")
    server.otherwise = whole(SUCCEEDED)
    assert isinstance(answer(asks, server), RemoteAnswer)


@pytest.mark.parametrize("server", ["http"], indirect=True)
def test_answer_that_broke_off_before_its_first_event_is_not_asked_for_again(server: WireServer) -> None:
    def breaks_off(asked: Asked) -> None:
        streams(b": here\n\n", then=lambda one: one.close())(asked)

    server.script, server.otherwise = [breaks_off], streams(completed())
    with pytest.raises(Exception, match="broke off"):
        answer(client(server), server)
    assert len(server.requests) == 1
