"""Events written to a client beside the server: in whole chunks, however little the client takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.types import Event, RunEvent
from service.web.sse import ChunkWriter, encode

RUN = "run_1"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        yield ours, theirs


def delta(number: int, text: str = "word") -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": text}, number)


def unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body += data[: int(size, 16)]
        assert data[int(size, 16) :][:2] == b"\r\n"
        data = data[int(size, 16) + 2 :]
    return body


def received(sock: socket.socket) -> bytes:
    found = b""
    try:
        while data := sock.recv(65_536):
            found += data
    except BlockingIOError:
        pass
    return found


def all_of(sock: socket.socket) -> bytes:
    return b"".join(iter(lambda: sock.recv(65_536), b""))


def test_what_a_client_takes_at_once_is_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    writer = ChunkWriter(ours, RUN)
    events = [delta(number) for number in range(1, 30)]
    assert writer.write(events[:1]) and writer.write(events[1:]) and not writer.unfinished
    assert unchunked(received(theirs)) == encode(RUN, events)


def test_a_chunk_that_was_begun_is_finished(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    writer = ChunkWriter(ours, RUN)
    events = [delta(1, "x" * 4_000_000), delta(2)]
    assert writer.write(events[:1]) and writer.unfinished
    with ThreadPoolExecutor(1) as pool:
        theirs.setblocking(True)
        reading = pool.submit(all_of, theirs)
        writer.finish()
        assert writer.write(events[1:]) and not writer.unfinished
        ours.shutdown(socket.SHUT_WR)
        assert unchunked(reading.result(20)) == encode(RUN, events)


def test_a_full_or_closed_connection_takes_nothing(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    writer = ChunkWriter(ours, RUN)
    assert writer.write([delta(1, "x" * 4_000_000)])
    assert not writer.write([delta(2)])
    theirs.close()
    assert not writer.write([delta(3)])
