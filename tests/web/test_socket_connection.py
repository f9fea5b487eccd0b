"""Connection of a WebSocket by itself, over a pair of sockets: clients that read nothing, or little."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from service.auth.permissions import Permission
from service.types import Caller
from service.web.sockets import connection, reader
from service.web.sockets.client import Client
from service.web.sockets.connection import Closed, Connection
from service.web.sockets.meter import Meter
from service.web.sockets.reader import Reader
from service.web.sockets.turns import Turns
from tests.web.sockets import frame

MUCH = b"x" * 4_000_000  # more than a socket holds


@pytest.fixture
def pair() -> Iterator[tuple[Connection, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.settimeout(10)
        yield Connection(ours), theirs


def test_a_write_never_blocks_and_the_rest_follows(pair: tuple[Connection, socket.socket]) -> None:
    opened, client = pair
    opened.send([MUCH, b"last"])
    assert opened.rest()
    found = bytearray()
    reader = threading.Thread(target=read_all, args=(client, found, len(MUCH) + 10 + 6))
    reader.start()
    opened.finish()
    reader.join(10)
    assert found.endswith(b"\x81\x04last")


def read_all(client: socket.socket, found: bytearray, size: int) -> None:
    while len(found) < size:
        found.extend(client.recv(65_536))


def test_a_client_that_reads_nothing_is_cut_off(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "STALLED_SECONDS", 0.2)
    opened, _ = pair
    opened.send([MUCH])
    ended: list[type[BaseException]] = []

    def finish() -> None:
        try:
            opened.finish()
        except Closed as closed:
            ended.append(type(closed))

    writer = threading.Thread(target=finish)
    writer.start()
    while not opened.over:
        opened.receive(0.05)
    writer.join(10)
    assert ended == [Closed]
    with pytest.raises(Closed):
        opened.send([b"more"])


def test_a_close_that_is_not_answered_ends(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "CLOSING_SECONDS", 0.1)
    opened, client = pair
    opened.close(1000, "ä" * 100)
    opened.close(1011, "again")
    while not opened.over:
        assert opened.receive(0.05) == []
    assert opened.code == 1000 and client.recv(200)[0] == 0x88


def test_messages_after_a_close_are_not_taken(pair: tuple[Connection, socket.socket]) -> None:
    opened, client = pair
    client.sendall(frame(1, b"one") + frame(8, b"\x03\xe8") + frame(1, b"two"))
    assert opened.receive(5) == [b"one"] and opened.closing


def test_a_meter_fills_again(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    meter = Meter(2, 1.0)
    assert [meter.passes() for _ in range(3)] == [True, True, False]
    now[0] += 1.5
    assert [meter.passes() for _ in range(2)] == [True, False]


def test_a_cancel_needs_the_right_of_its_route(
    pair: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Today it is that of a connection: this holds once it is another."""
    monkeypatch.setattr(reader, "CANCEL", Permission("runs:cancel"))
    opened, other = pair
    request: Any = SimpleNamespace(path="/v1/agents/assistant/chat", id="req")
    caller = Caller("usr_1", "ada", "user", scopes=("actions:runs:write",))
    other.shutdown(socket.SHUT_WR)
    Reader(Client(opened, request), Turns(), Any, caller, lambda: True).read([b'{"type": "cancel"}'])  # type: ignore[arg-type]
    assert b'"code":"forbidden"' in other.recv(65_536)
