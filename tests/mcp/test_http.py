"""Streamable HTTP: loopback is the operator's word, redirects are refused, credentials are sent as bearer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from service.infra.sealing import Seal
from service.mcp.credentials import PURPOSE
from service.store import mcp as rows
from service.wiring import Services
from tests.conftest import RedisServer, free_port, process, wait_until
from tests.infra.test_http import Peer
from tests.llm.wire_server import WireServer
from tests.mcp import house
from tests.mcp.house import use

CANARY = "tok_canary"


class Evil:
    """The evil server over HTTP, which may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.port = free_port()
        self.command = [sys.executable, str(house.SERVER), str(folder), str(self.port)]

    @property
    def spec(self) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self.port}/mcp", "tools": house.rules()}

    def wait(self) -> None:
        wait_until(lambda: httpx2.get(f"http://127.0.0.1:{self.port}/").status_code == 404, "the server")


@pytest.fixture
def served(folder: Path) -> Iterator[Evil]:
    evil = Evil(folder)
    with process(evil.command):
        evil.wait()
        yield evil


def keep(wired: Services, user_id: str, secret: str) -> None:
    key = Seal(wired.settings.secret_key.get_secret_value(), PURPOSE)
    wired.infra.db.transact(lambda tx: rows.set_credential(tx, "evil", user_id, key.close(secret)))


def test_calls_over_http(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, served: Evil
) -> None:
    with house.services(tmp_path, redis_server.url, upstream, {"evil": served.spec}) as wired:
        assert use(wired, "evil.echo", text="hi").content == "hi"
        assert '"credential": ""' in use(wired, "evil.secret").content
        hung = use(wired, "evil.hang", seconds=1.0)
        assert hung.timed_out and use(wired, "evil.echo", text="on").ok
        flood = use(wired, "evil.flood")
        assert flood.ok and len(flood.content) < 21_000


def test_server_that_dies_in_mid_call_comes_back(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, folder: Path
) -> None:
    evil = Evil(folder)
    with house.services(tmp_path, redis_server.url, upstream, {"evil": evil.spec}) as wired:
        assert "not reached" in use(wired, "evil.echo").content
        with process(evil.command):
            evil.wait()
            wait_until(lambda: use(wired, "evil.echo", text="hi").ok, "the connection")
            assert use(wired, "evil.die", seconds=10).timed_out
        with process(evil.command):
            evil.wait()
            wait_until(lambda: use(wired, "evil.echo", text="hi").ok, "the connection")


def test_credentials_are_sent_to_their_server_and_kept_encrypted(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, served: Evil, caplog: Any
) -> None:
    servers = {"evil": {**served.spec, "credentials": "service"}}
    with house.services(tmp_path, redis_server.url, upstream, servers) as wired:
        assert "needs a credential" in use(wired, "evil.secret").content
        keep(wired, "", CANARY)
        told = wait_until(lambda: (found := use(wired, "evil.secret")).ok and found, "the credential")
        assert f"Bearer {CANARY}" in told.content
        assert CANARY not in str(wired.infra.db.query(lambda tx: rows.credential(tx, "evil")))
    assert CANARY not in caplog.text


def test_each_user_has_a_credential(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, served: Evil
) -> None:
    servers = {"evil": {**served.spec, "credentials": "user"}}
    with house.services(tmp_path, redis_server.url, upstream, servers) as wired:
        keep(wired, "usr_ada", "tok_ada")
        keep(wired, "usr_bob", "tok_bob")
        assert "Bearer tok_ada" in use(wired, "evil.secret", "usr_ada").content
        assert "Bearer tok_bob" in use(wired, "evil.secret", "usr_bob").content
        refused = use(wired, "evil.secret", "usr_eve")
        assert not refused.ok and "there is none for you" in refused.content


def test_redirects_are_refused(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> None:
    elsewhere = Peer(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
    sent = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}\r\nContent-Length: 0\r\n\r\n"
    peer = Peer(sent.encode())
    servers = {"evil": {"url": peer.url, "tools": {"echo": {"risk": "read"}}}}
    try:
        with house.services(tmp_path, redis_server.url, upstream, servers, "evil.echo") as wired:
            assert not use(wired, "evil.echo", text="hi").ok
        assert peer.got and not elsewhere.got
    finally:
        peer.close()
        elsewhere.close()


def test_sdk_is_not_imported_without_servers() -> None:
    program = "import service.wiring, sys; print('mcp' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"
