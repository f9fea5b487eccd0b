"""Retries with the circuit breaker of each model."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator
from typing import Any

import pytest

from service import errors
from service.llm.client import ModelCall
from service.llm.retry import RetryingClient
from tests.llm.conftest import MakeClaude, a_call, ask, run
from tests.llm.resilient import OVERLOADED, REJECTED, MakeResilient, attempts, make
from tests.llm.wire_server import (
    Exchange,
    WireServer,
    chunk,
    close,
    end,
    error,
    silent,
    sse,
    start,
    stream,
    text_events,
    whole,
)

__all__ = ["attempts", "make"]


def fail(client: RetryingClient, expected: type[Exception] = errors.ModelError, **fields: Any) -> None:
    with pytest.raises(expected):
        run(client.create(ask(**fields), a_call()))


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("fault", [OVERLOADED, close, whole(b"garbage")])
def test_a_failing_model_is_left_alone(
    make: MakeResilient, server: WireServer, fault: Any, streaming: bool
) -> None:
    server.otherwise = fault
    client = make(retries=0, failures=2)
    fail(client, stream=streaming)
    fail(client, stream=streaming)
    with pytest.raises(errors.ModelUnavailable) as caught:
        run(client.create(ask(stream=streaming), a_call()))
    assert caught.value.retry_after and len(server.requests) == 2
    assert client.breaker("claude-haiku-5-5").state == "open"


def test_breaker_opened_between_attempts_ends_the_retries(make: MakeResilient, server: WireServer) -> None:
    server.otherwise = OVERLOADED
    fail(make(retries=9, failures=2))
    assert len(server.requests) == 2


def test_each_model_has_its_own(make: MakeResilient, server: WireServer) -> None:
    server.script = [OVERLOADED]
    client = make(retries=0, failures=1)
    fail(client)
    run(client.create(ask(model="claude-opus-5-5"), a_call()))
    assert {name: client.breaker(name).state for name in ("claude-haiku-5-5", "claude-opus-5-5")} == {
        "claude-haiku-5-5": "open",
        "claude-opus-5-5": "closed",
    }


@pytest.mark.parametrize(
    "fault", [REJECTED, error(429, "rate_limit_error"), error(401, "authentication_error")]
)
def test_its_4xx_say_nothing_of_its_health(make: MakeResilient, server: WireServer, fault: Any) -> None:
    server.otherwise = fault
    client = make(retries=0, failures=1)
    fail(client)
    assert client.breaker("claude-haiku-5-5").state == "closed"


def test_a_deadline_of_ours_says_nothing_of_its_health(make: MakeResilient, server: WireServer) -> None:
    server.script = [silent]
    client = make(retries=0, failures=1)
    with pytest.raises(errors.ModelTimeout):
        run(client.create(ask(), a_call(0.1)))
    assert client.breaker("claude-haiku-5-5").state == "closed"


@pytest.mark.parametrize(("silence", "state"), [(0.1, "closed"), (60.0, "open")])
def test_the_haste_of_one_agent_says_nothing_of_its_health(
    make: MakeResilient, server: WireServer, make_claude: MakeClaude, silence: float, state: str
) -> None:
    server.script = [silent]
    client = make(make_claude(server.url, timeout=0.2), retries=0, failures=1)
    with pytest.raises(errors.ModelTimeout):
        run(client.create(ask(), ModelCall(time.monotonic() + 20, silence)))
    assert client.breaker("claude-haiku-5-5").state == state


def test_a_reader_that_leaves_says_nothing_of_its_health(make: MakeResilient, server: WireServer) -> None:
    server.script = [OVERLOADED, stream([start(), *text_events("one")], silent), OVERLOADED]
    client = make(retries=0, failures=2)
    fail(client)
    answering = client.create(ask(stream=True), a_call())
    next(answering)
    answering.close()
    fail(client)
    assert client.breaker("claude-haiku-5-5").state == "open"


def test_a_probe_that_speaks_lets_the_others_in(make: MakeResilient, server: WireServer) -> None:
    go_on = threading.Event()

    def then(exchange: Exchange) -> None:
        assert go_on.wait(30)
        exchange.send(b"".join(chunk(sse(event)) for event in end()) + b"0\r\n\r\n")

    server.script = [OVERLOADED, stream([start(), *text_events("one")], then)]
    client = make(retries=0, failures=1, recovery=0.05)
    fail(client)
    threading.Event().wait(0.06)
    probe = client.create(ask(stream=True), a_call())
    next(probe)
    run(client.create(ask(), a_call()))
    go_on.set()
    assert run(probe)[1].text == "one"


def test_closing_before_the_start_needs_nothing(make: MakeResilient) -> None:
    answering: Generator[Any, None, Any] = make().create(ask(), a_call())
    answering.close()
