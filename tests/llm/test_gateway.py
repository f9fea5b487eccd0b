"""Client of a run whose calls another Slipway holds: refusals of the run, and a retry where a replica is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from service.errors import (
    BudgetExceeded,
    ModelRejected,
    ModelUnavailable,
    RunCancelled,
    RunLimit,
    SlipwayError,
)
from service.llm.build import gateway
from service.llm.client import ModelReply, ModelRequest
from tests.llm.conftest import a_call
from tests.llm.wire_server import MESSAGE, WireServer, close, error, whole


@pytest.fixture
def upstream() -> Iterator[WireServer]:
    server = WireServer(whole(MESSAGE))
    yield server
    server.stop()


def ask(url: str) -> ModelReply:
    request = ModelRequest("claude-haiku-5-5", [{"role": "user", "content": "Hi."}], 100)
    with closing(gateway(url, "token-of-the-run", 10, 3)) as client:
        answer = client.create(request, a_call())
        while True:
            try:
                next(answer)
            except StopIteration as done:
                reply: ModelReply = done.value
                return reply


def test_call_carries_the_token_of_the_run(upstream: WireServer) -> None:
    assert ask(upstream.url).text == "Good day."
    assert upstream.requests[0].headers["authorization"] == "Bearer token-of-the-run"


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (402, "billing_error", BudgetExceeded),
        (401, "authentication_error", RunCancelled),
        (403, "permission_error", RunLimit),
        (400, "invalid_request_error", ModelRejected),
        (404, "not_found_error", ModelRejected),
    ],
)
def test_refusal_is_final(upstream: WireServer, status: int, kind: str, expected: type[SlipwayError]) -> None:
    upstream.otherwise = error(status, kind)
    with pytest.raises(expected) as raised:
        ask(upstream.url)
    assert "UPSTREAM" not in raised.value.detail
    assert len(upstream.requests) == 1


def test_lost_replica_is_asked_once_more(upstream: WireServer) -> None:
    upstream.script = [close]
    assert ask(upstream.url).text == "Good day."
    upstream.otherwise = close
    with pytest.raises(ModelUnavailable):
        ask(upstream.url)
    assert len(upstream.requests) == 4
