"""`limits.model_seconds`: an agent that waits less long for the model than the service does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from service.types import Run, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import (
    MESSAGE,
    Exchange,
    Handler,
    WireServer,
    chunk,
    end,
    head,
    sse,
    start,
    text_events,
    whole,
)
from tests.runs import inside

AGENTS = {
    "probe": f"{inside.SINGLE}tier: {{ask: no}}\nlimits: {{model_seconds: 1, seconds: 25}}\n",
    "patient": f"{inside.SINGLE}tier: {{ask: no}}\nlimits: {{model_seconds: 600, seconds: 25}}\n",
}


@pytest.fixture
def hurried(tmp_path: Path, redis_server: RedisServer, upstream: WireServer) -> Iterator[Services]:
    """One failure opens the breaker, and nothing is tried again."""
    settings = {"model_timeout": 6.0, "model_retries": 0, "breaker_failures": 1}
    with inside.services(tmp_path, redis_server.url, upstream.url, AGENTS, **settings) as wired:
        yield wired


def after_a_while(handler: Handler) -> Handler:
    """A handler that begins later than one of the agents waits for."""

    def answer(exchange: Exchange) -> None:
        time.sleep(2.5)
        with suppress(OSError):  # the client has left
            handler(exchange)

    return answer


def in_the_middle(exchange: Exchange) -> None:
    """A stream that rests for as long between two words."""
    exchange.send(head(200, None, "content-type: text/event-stream\r\n"))
    first, *rest = text_events("one ", "two")
    exchange.send(chunk(sse(start())) + chunk(sse(first)))
    after_a_while(
        lambda late: late.send(b"".join(chunk(sse(event)) for event in [*rest, *end()]) + b"0\r\n\r\n")
    )(exchange)


def asked(wired: Services, agent: str, door: str) -> Run:
    request = inside.request("Well?", agent=agent, cache="bypass")
    if door == "invoke":
        return wired.runs.start.invoke(inside.ADA, request, None, "req").run
    started, told = wired.runs.start.stream(inside.ADA, request, None, "req")
    for _ in told:
        pass
    return wired.runs.queries.get(started.run.id)


@pytest.mark.parametrize(
    ("door", "slow"), [("invoke", after_a_while(whole(MESSAGE))), ("stream", in_the_middle)]
)
def test_a_silent_model_is_left_when_the_agent_says(
    hurried: Services, upstream: WireServer, door: str, slow: Handler
) -> None:
    upstream.script = [slow]
    assert asked(hurried, "patient", door).status == RunStatus.SUCCEEDED
    upstream.script = [slow]
    run = asked(hurried, "probe", door)
    assert run.error is not None and (run.status, run.error["code"]) == (RunStatus.FAILED, "model_timeout")
    # Its haste says nothing of the model's health: others are not kept from asking it.
    assert asked(hurried, "patient", "invoke").status == RunStatus.SUCCEEDED


def test_shorter_timeout_of_the_service_applies(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer
) -> None:
    settings = {"model_timeout": 1.0, "model_retries": 0}
    with inside.services(tmp_path, redis_server.url, upstream.url, AGENTS, **settings) as wired:
        upstream.script = [after_a_while(whole(MESSAGE))]
        run = asked(wired, "patient", "invoke")
    assert run.error is not None and run.error["code"] == "model_timeout"
