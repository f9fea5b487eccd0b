"""Parser of server-sent events, at any cut of the bytes."""

from __future__ import annotations

import pytest
from slipway_client import UnexpectedAnswer, sse
from slipway_client.sse import Message, Parser

STREAM = (
    '\ufeffid: run_1:1\nevent: text.delta\ndata: {"text":"…é"}\n\n'
    ": keep-alive\n\nretry: 1000\r\nevent: reconnect\r\ndata: {}\r\n\r\n"
    "data: one\rdata:two\rdata\r\rid: 3\n\nevent: cut\ndata: never"
).encode()
MESSAGES = [
    Message("text.delta", '{"text":"…é"}', "run_1:1"),
    Message("reconnect", "{}", None),
    Message("message", "one\ntwo\n", None),
]


def parsed(*chunks: bytes) -> list[Message]:
    parser = Parser()
    return [message for chunk in chunks for message in parser.feed(chunk)]


def test_messages_are_the_same_wherever_the_bytes_are_cut() -> None:
    for cut in range(len(STREAM)):
        assert parsed(STREAM[:cut], STREAM[cut:]) == MESSAGES, cut
    assert parsed(*(bytes([byte]) for byte in STREAM)) == MESSAGES


def test_message_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "MAX_BUFFER", 100)
    parser = Parser()
    assert list(parser.feed(b"data: " + b"x" * 80 + b"\n\n")) != []
    with pytest.raises(UnexpectedAnswer):
        list(parser.feed(b"data: " + b"x" * 60 + b"\ndata: " + b"x" * 60))
