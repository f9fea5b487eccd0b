"""Another provider takes the calls of one that is away, within the same deadline and by the same rules of money."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from service import errors
from service.llm import retry, sdk
from service.llm.client import CallProgress, ModelCall
from service.llm.fallback import FallbackClient
from service.llm.platforms import BedrockClient
from service.llm.retry import Provider, RetryingClient
from service.observe.observer import ModelAttempt
from tests.llm.conftest import MakeClaude, a_call, ask, run
from tests.llm.platform_servers import AWS, REGION, aws_stream, signed
from tests.llm.wire_server import (
    MESSAGE,
    WireServer,
    close,
    end,
    error,
    silent,
    start,
    stream,
    text_events,
    whole,
)

GONE = error(529, "overloaded_error")
EVENTS = [start(), *text_events("From ", "Bedrock."), *end()]


class Both:
    """The API first, Bedrock second."""

    def __init__(self, api: WireServer, bedrock: WireServer, clients: list[Any]) -> None:
        self.api, self.bedrock = api, bedrock
        self.attempts: list[ModelAttempt] = []
        self.client = FallbackClient(
            [
                RetryingClient(client, 1, 3, 60.0, self.attempts.append, Provider(name, name == "anthropic"))
                for name, client in zip(("anthropic", "bedrock"), clients, strict=True)
            ]
        )

    @property
    def outcomes(self) -> list[tuple[str, str | None]]:
        return [(one.provider, one.error_code) for one in self.attempts]

    def asks(self, call: ModelCall | None = None, **fields: Any) -> Any:
        return run(self.client.create(ask(**fields), call or a_call()))


@pytest.fixture
def both(make_claude: MakeClaude, monkeypatch: pytest.MonkeyPatch) -> Iterator[Both]:
    for name, value in AWS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(retry, "FIRST_PAUSE", 0.001)
    servers = WireServer(GONE), WireServer(signed(whole(MESSAGE)))
    bedrock = BedrockClient(sdk.bedrock(REGION, servers[1].url), {}, 10.0, 3.0, 8)
    yield Both(*servers, [make_claude(servers[0].url), bedrock])
    bedrock.close()
    for server in servers:
        server.stop()


def test_the_first_provider_answers_alone(both: Both) -> None:
    both.api.otherwise = whole(MESSAGE)
    _, reply = both.asks()
    assert reply.provider == "anthropic" and not both.bedrock.requests


def test_the_second_answers_after_the_retries_of_the_first(both: Both) -> None:
    both.bedrock.otherwise = signed(aws_stream(EVENTS))
    asked: list[CallProgress] = []
    call = ModelCall(time.monotonic() + 20, before_retry=asked.append)
    pieces, reply = both.asks(call, stream=True)
    assert "".join(pieces) == "From Bedrock." and reply.provider == "bedrock"
    assert both.outcomes == [
        *[("anthropic", "model_unavailable")] * 2,
        ("bedrock", None),
    ]
    assert [one.billable for one in asked] == [False, False]


def test_an_open_breaker_of_the_first_is_skipped(both: Both) -> None:
    for _ in range(3):
        both.asks()
    assert len(both.api.requests) == 3, "its breaker opened after three failures"
    states = {(one.provider, one.state) for one in both.client.breakers()}
    assert states == {("anthropic", "open"), ("bedrock", "closed")}


def test_a_refused_connection_is_away(both: Both) -> None:
    both.api.stop()
    assert both.asks()[1].provider == "bedrock"


def test_a_slow_first_is_not_asked_again_and_its_cost_is_settled_first(both: Both) -> None:
    both.api.otherwise = silent
    asked: list[CallProgress] = []
    call = ModelCall(time.monotonic() + 20, silence=0.2, before_retry=asked.append)
    assert both.asks(call)[1].provider == "bedrock"
    assert len(both.api.requests) == 1 and [one.billable for one in asked] == [True]


def test_no_second_provider_where_another_attempt_cannot_be_paid(both: Both) -> None:
    both.api.otherwise = silent

    def no_money(progress: CallProgress) -> None:
        raise errors.BudgetExceeded("no")

    with pytest.raises(errors.BudgetExceeded):
        both.asks(ModelCall(time.monotonic() + 20, silence=0.2, before_retry=no_money))
    assert not both.bedrock.requests


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "rate_limit_error"), (401, "authentication_error"), (404, "not_found_error")]
)
def test_refusals_of_the_account_or_of_a_missing_model_go_on(both: Both, status: int, kind: str) -> None:
    both.api.otherwise = error(status, kind, "retry-after: 5\r\n")
    assert both.asks()[1].provider == "bedrock"
    assert len(both.api.requests) == 1


def test_a_bad_request_is_not_asked_elsewhere(both: Both) -> None:
    both.api.otherwise = error(400, "invalid_request_error")
    with pytest.raises(errors.ModelRejected):
        both.asks()
    assert not both.bedrock.requests


@pytest.mark.parametrize("status", [400, 404])
def test_a_model_that_the_second_does_not_have_leaves_the_error_of_the_first(both: Both, status: int) -> None:
    both.bedrock.otherwise = whole({"message": "The provided model identifier is invalid."}, status)
    with pytest.raises(errors.ModelUnavailable):
        both.asks()


def test_no_fallback_after_the_first_piece(both: Both) -> None:
    both.api.otherwise = stream([start(), *text_events("Half")[:2]], then=close)
    answer = both.client.create(ask(stream=True), a_call())
    assert next(answer).text == "Half"
    with pytest.raises(errors.ModelInterrupted):
        next(answer)
    assert not both.bedrock.requests


def test_an_aborted_call_asks_nobody_else(both: Both) -> None:
    both.api.otherwise = silent
    call = a_call()
    both.api.script = [lambda exchange: (call.abort(), silent(exchange))]  # type: ignore[func-returns-value,list-item]
    with pytest.raises(errors.RunCancelled):
        both.asks(call)
    assert not both.bedrock.requests


def test_one_that_can_be_reached_is_ready_and_counts(both: Both) -> None:
    both.api.stop()
    both.bedrock.otherwise = signed(whole({"inputTokens": 9}))
    assert both.client.count_tokens(ask(), a_call()) == 9
    both.bedrock.otherwise = whole({}, 404)
    both.client.ping()
    both.bedrock.stop()
    with pytest.raises(errors.ModelUnavailable):
        both.client.ping()
    with pytest.raises(errors.ModelUnavailable):
        both.client.count_tokens(ask(), a_call())
