"""Server-sent events of another service: split anywhere, and bounded."""

from __future__ import annotations

import pytest

from service.errors import RemoteFailed
from service.remote.events import MAX_EVENT, MAX_EVENTS, ServerSentEvents

STREAM = b": beat\r\n\r\nevent: a\r\ndata: one\r\ndata:two\r\n\r\nevent: b\n\ndata: three\n\ndata: cut off"


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_events_are_the_same_however_the_stream_is_cut(size: int) -> None:
    parts = (STREAM[at : at + size] for at in range(0, len(STREAM), size))
    assert list(ServerSentEvents().read(parts)) == [("a", b"one\ntwo"), ("", b"three")]


@pytest.mark.parametrize(
    "flood",
    [
        b"data:\n" * (MAX_EVENT + 1),  # many lines of nothing
        b"data: " + b"x" * MAX_EVENT,  # one line without an end
        b"data:\n\n" * (MAX_EVENTS + 1),
        b":\n" * (20 * 1024 * 1024),
    ],
    ids=["lines", "line", "events", "comments"],
)
def test_flood_is_refused(flood: bytes) -> None:
    parts = (flood[at : at + 65_536] for at in range(0, len(flood), 65_536))
    with pytest.raises(RemoteFailed):
        list(ServerSentEvents().read(parts))


def test_line_in_small_pieces_is_read_in_one_pass() -> None:
    """Each piece is looked at once: a line sent byte by byte costs no more than its length."""
    parts = (b"x" for _ in range(MAX_EVENT + 2))
    with pytest.raises(RemoteFailed):
        list(ServerSentEvents().read(parts))
