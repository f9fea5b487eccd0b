"""Streamed runs whose worker is lost within a chosen call: another attempt ends them, the client reads on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from service.types import Event, RunEvent
from service.wiring import Services
from tests.llm.wire_server import Exchange, WireServer
from tests.runs import inside

called: list[Callable[[], None]] = []  # run within each call of a tool that a test's agent has


def told_with_a_loss(wired: Services, upstream: WireServer, within: int, **fields: Any) -> list[RunEvent]:
    """Return the events that a client gets if the worker is lost within the model or tool call of that number.

    Without a lease the run is abandoned at once. The first attempt is read on, as of a worker that was only frozen.
    """
    request = inside.request("Do it.", cache="bypass", **fields)
    started, batches = wired.runs.start.stream(inside.ADA, request, None, "req")
    answer, calls = upstream.otherwise, 0

    def lose() -> None:
        nonlocal calls
        calls += 1
        if calls == within:
            assert wired.runs.execution.take_up(started.run.id)

    def lose_and_answer(exchange: Exchange) -> None:
        lose()
        answer(exchange)

    upstream.otherwise = lose_and_answer
    called.append(lose)
    try:
        events = [event for batch in batches for event in batch]
    finally:
        upstream.otherwise = answer
        called.remove(lose)
    assert started.place is not None and calls > within
    started.place.give()
    return events


def assert_whole(events: list[RunEvent]) -> None:
    """Check that a client has every event once, and as its text the answer."""
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    assert [event.name for event in events if event.name.is_last] == [Event.RUN_COMPLETED]
    assert events[-1].data["output"] == "".join(_standing(events))


def _standing(events: list[RunEvent]) -> list[str]:
    """Return the text that no later `run.resumed` declares void."""
    voids = [(event.data["from_seq"], event.seq) for event in events if event.name is Event.RUN_RESUMED]
    deltas = [event for event in events if event.name is Event.TEXT_DELTA]
    return [one.data["text"] for one in deltas if not any(since < one.seq < until for since, until in voids)]
