"""Headroom of a provider's rate limits, from the headers of its answers."""

from __future__ import annotations

import json

import pytest

from service.llm.headroom import headroom
from service.observe.observer import ModelAttempt
from tests.llm.conftest import a_call, ask, run
from tests.llm.resilient import MakeResilient, attempts, make
from tests.llm.wire_server import MESSAGE, Exchange, WireServer

__all__ = ["attempts", "make"]

ANTHROPIC = {
    "requests-limit": "50",
    "requests-remaining": "49",
    "requests-reset": "2026-11-30T00:00:00Z",
    "input-tokens-limit": "40000",
    "input-tokens-remaining": "2000",
}


def test_shares_that_are_left() -> None:
    given = {f"anthropic-ratelimit-{name}".encode(): value.encode() for name, value in ANTHROPIC.items()}
    assert dict(headroom(given)) == {"requests": 0.98, "input_tokens": 0.05}
    openai = {b"x-ratelimit-limit-tokens": b"100", b"x-ratelimit-remaining-tokens": b"25"}
    assert dict(headroom(openai)) == {"tokens": 0.25}


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [
        (b"0", b"0"),
        (b"", b"5"),
        (b"10", b"-1"),
        (b"10", b"many"),
        (b"1e9", b"5"),
        (b"9" * 400, b"1"),
        (b"10", None),
    ],
)
def test_what_cannot_be_read_is_left_out(limit: bytes, remaining: bytes | None) -> None:
    given = {b"anthropic-ratelimit-tokens-limit": limit}
    if remaining is not None:
        given[b"anthropic-ratelimit-tokens-remaining"] = remaining
    assert headroom(given) == ()


def test_more_left_than_there_may_be_is_all_of_it() -> None:
    given = {b"x-ratelimit-limit-requests": b"10", b"x-ratelimit-remaining-requests": b"12"}
    assert headroom(given) == (("requests", 1.0),)


def answered(status: int, headers: dict[str, str]) -> object:
    body = json.dumps(MESSAGE if status == 200 else {"type": "error", "error": {"type": "overloaded_error"}})
    lines = "".join(f"anthropic-ratelimit-{name}: {value}\r\n" for name, value in headers.items())
    text = f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{lines}content-length: {len(body)}\r\n\r\n{body}"

    def answer(exchange: Exchange) -> None:
        exchange.send(text.encode())

    return answer


def test_attempts_tell_what_their_answer_said(
    make: MakeResilient, server: WireServer, attempts: list[ModelAttempt]
) -> None:
    server.script = [answered(529, {"requests-limit": "10", "requests-remaining": "0"})]  # type: ignore[list-item]
    server.otherwise = answered(200, ANTHROPIC)  # type: ignore[assignment]
    run(make().create(ask(), a_call()))
    assert [dict(each.headroom) for each in attempts] == [
        {"requests": 0.0},
        {"requests": 0.98, "input_tokens": 0.05},
    ]
    server.otherwise = answered(200, {})  # type: ignore[assignment]
    run(make().create(ask(), a_call()))
    assert attempts[-1].headroom == () and attempts[-1].first_ms is None
