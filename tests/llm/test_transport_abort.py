"""Aborted calls on the transport, in the clear and under TLS."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx2
import pytest

from service.llm.transport import carrying
from tests.llm.conftest import a_call
from tests.llm.posting import client, post
from tests.llm.wire_server import WireServer, silent

__all__ = ["client"]


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
    server.asked.acquire(timeout=30), server.asked.acquire(timeout=30)
    call.abort()
    waiting.join(30)
    assert not waiting.is_alive() and failures and server.hung_up.wait(30)
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
        tls_server.asked.acquire(timeout=30)
        call.abort()

    timer = threading.Thread(target=abort)
    timer.start()
    with carrying(call), pytest.raises(httpx2.HTTPError):
        client.post(tls_server.url, timeout=30)
    timer.join(30)
    assert tls_server.hung_up.wait(30)
