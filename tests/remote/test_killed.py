"""Workers lost while a remote agent works: the next attempt asks again, clients get every event once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from service.types import Event
from tests.conftest import wait_until
from tests.llm.wire_server import Exchange, chunk, whole
from tests.remote.house import SUCCEEDED, Far, completed, event, streams, text
from tests.runs.killed import assert_whole, told_with_a_loss

CALLED = event("tool.called", {"call_id": "c1", "name": "look", "arguments": {}})
FINISHED = event("tool.finished", {"call_id": "c1", "ok": True, "ms": 1, "preview": ""})


def test_next_attempt_asks_again_under_the_same_key_and_tells_nothing_twice(far_in_each: Far) -> None:
    far = far_in_each
    far.service.otherwise = streams(CALLED, FINISHED, text("Good "), text("day."), completed())
    events = told_with_a_loss(far.services, far.service, within=1)
    assert_whole(events)
    assert [one.name for one in events].count(Event.TOOL_CALLED) == 1
    keys = {one.headers["idempotency-key"] for one in far.service.requests}
    attempts = [body["attempt"] for body in far.bodies]
    assert len(keys) == 1 and attempts == [1, 2]


@pytest.mark.parametrize("stream", [False, True])
def test_kept_gateway_call_is_not_paid_again(far_in_each: Far, stream: bool) -> None:
    far = far_in_each
    statuses: list[int] = []

    def calls(exchange: Exchange) -> None:
        body: dict[str, Any] = {
            "model": "claude-haiku-5-5",
            "max_tokens": 50,
            "messages": [{"role": "user", "content": "Hello"}],
            "stream": stream,
        }
        statuses.append(far.door.post(exchange.json["run_token"], body).status_code)
        whole(SUCCEEDED)(exchange)

    far.service.otherwise = calls
    run = far.ask()
    spent = far.door.spent
    assert run.status == "succeeded" and spent > 0

    lost: list[Any] = []

    def calls_and_loses(exchange: Exchange) -> None:
        """The first attempt's worker is lost after the call: the second repeats it."""
        first = not lost
        calls_of = far.door.post(
            exchange.json["run_token"],
            {"model": "claude-haiku-5-5", "max_tokens": 51, "messages": [{"role": "user", "content": "Hi"}]},
        )
        assert calls_of.status_code == 200
        if first:
            lost.append(calls_of)
            [handle] = far.services.runs.execution.slots.all()
            assert far.services.runs.execution.take_up(handle.run_id)
        else:
            assert calls_of.content == lost[0].content and calls_of.headers["X-Cost-USD"] == "0.000000"
        whole(SUCCEEDED)(exchange)

    far.service.otherwise = calls_and_loses
    events = far.stream()
    assert [one.name for one in events if one.name.is_last] == [Event.RUN_COMPLETED]
    assert statuses == [200] and far.door.held == 0
    assert far.door.spent < 3 * spent  # two calls in all
    run = far.services.runs.queries.get(events[-1].data["run_id"])
    assert run.cost_nano == far.door.spent - spent


def test_events_before_a_stored_gateway_call_are_told_once_too(far_in_each: Far) -> None:
    """The step of a gateway call is stored while the agent's own goes on, with all that was told before it."""
    far, asked = far_in_each, []

    def calls_and_loses(exchange: Exchange) -> None:
        asked.append(exchange)
        streams(CALLED, FINISHED, text("Good "), then=rest)(exchange)

    def rest(exchange: Exchange) -> None:
        assert far.door.post(exchange.json["run_token"]).status_code == 200
        if len(asked) == 1:
            wait_until(lambda: far.door.rows()[0]["told"], "the step of the call")
            [handle] = far.services.runs.execution.slots.all()
            assert far.services.runs.execution.take_up(handle.run_id)
        for one in (text("day."), completed()):
            exchange.send(chunk(one))
        exchange.send(b"0\r\n\r\n")

    far.service.otherwise = calls_and_loses
    events = far.stream()
    assert_whole(events)
    names = Counter(one.name for one in events)
    assert len(asked) == 2 and names[Event.RUN_RESUMED] == 1
    assert names[Event.TOOL_CALLED] == names[Event.TOOL_FINISHED] == names[Event.USAGE] == 1
    told = [one.data["text"] for one in events if one.name is Event.TEXT_DELTA]
    assert "".join(told) == events[-1].data["output"] == "Good day."
