"""Server-sent events written to a client's socket: in whole chunks, however slow the client."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from service.types import Event, RunEvent
from service.web.sse import SseLens
from service.web.streaming import ChunkWriter

LENS = SseLens("run_1")


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


def test_events_taken_at_once_are_written_whole(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    writer = ChunkWriter(ours, LENS)
    events = [delta(number) for number in range(1, 30)]
    writer.write(events[:1])
    writer.write(events[1:])
    assert not writer.rest()
    assert unchunked(received(theirs)) == LENS.encode(events)


def test_a_chunk_that_was_begun_is_finished(pair: tuple[socket.socket, socket.socket]) -> None:
    """Bit by bit without waiting, or all of it."""
    ours, theirs = pair
    writer = ChunkWriter(ours, LENS)
    events = [delta(1, "x" * 4_000_000), delta(2), delta(3, "y" * 4_000_000)]
    writer.write(events[:1])
    found = b""
    while writer.rest():
        found += received(theirs)
    writer.write(events[1:2])
    writer.write(events[2:])
    assert writer.rest()
    with ThreadPoolExecutor(1) as pool:
        theirs.setblocking(True)
        reading = pool.submit(all_of, theirs)
        writer.finish()
        assert not writer.rest()
        ours.shutdown(socket.SHUT_WR)
        assert unchunked(found + reading.result(20)) == LENS.encode(events[:1]) + LENS.encode(events[1:])


def test_a_closed_connection_says_so(pair: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = pair
    writer = ChunkWriter(ours, LENS)
    theirs.close()
    with pytest.raises(OSError):
        writer.write([delta(1)])


def test_stream_waiting_for_the_model_sends_heartbeats(client: httpx2.Client) -> None:
    """By whoever looks at every client: the run's own thread waits for the model."""
    body = {"input": "[offline first_token_ms=2000] Well?", "cache": "bypass"}
    told = client.post("/v1/agents/assistant/stream", json=body).text
    waited, _, spoken = told.partition("event: text.delta")
    assert waited.count(": keep-alive\n\n") >= 2 and "event: run.completed" in spoken
