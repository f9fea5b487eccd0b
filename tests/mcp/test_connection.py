"""Connections that outlive slow servers, and do not lead elsewhere."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from pathlib import Path

import anyio
import pytest

from service.mcp import connection
from service.mcp.connection import Connection
from service.mcp.http import http
from service.mcp.messages import Transport
from service.mcp.stdio import stdio
from service.store.mcp import Definition
from tests.mcp import house


async def _listed(found: Mapping[str, Definition]) -> None:
    pass


def test_a_busy_server_keeps_its_connection_and_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "RELIST_SECONDS", 0.1)
    command = house.stdio(tmp_path / "evil")["command"]
    downs: list[str] = []

    async def connect() -> Transport:
        return stdio("evil", command, {})

    async def main() -> str:
        kept = Connection(
            connect, frozenset({"busy"}), _listed, lambda up, why: None if up else downs.append(why)
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.keep)
            await kept.look()
            monkeypatch.setattr(connection, "LIST_SECONDS", 0.3)
            result = await kept.call("busy", {"text": "late"}, {})
            kept.close()
        return str(result.content[0].model_dump()["text"])

    assert anyio.run(main) == "late"
    assert downs == []


def test_a_redirect_is_not_followed_even_within_the_origin() -> None:
    paths: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for _ in range(4):
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            with conn:
                paths.append(conn.recv(65536).split(b" ")[1].decode())
                conn.sendall(
                    b"HTTP/1.1 307 Moved\r\nLocation: /other\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                )

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/mcp"

    async def connect() -> Transport:
        return http(url, "a-credential")

    async def main() -> None:
        kept = Connection(connect, frozenset(), _listed, lambda up, why: None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.keep)
            with pytest.raises(connection.NotConnected):
                await kept.look()
            kept.close()

    anyio.run(main)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    assert set(paths) == {"/mcp"}
