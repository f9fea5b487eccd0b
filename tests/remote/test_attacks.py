"""Remote agents that flood, hang on, or go round in circles: bounded, and the run ends once."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.types import Event
from tests.conftest import RedisServer
from tests.llm.wire_server import Exchange, WireServer, chunk, head, whole
from tests.remote import house
from tests.remote.house import SUCCEEDED, Far, completed, event, streams, text

PIECE = b"x" * 65_536
GIB = 2**30


def endless(pieces: Iterator[bytes], pause: float = 0.0, kind: str = "text/event-stream") -> Any:
    """A handler that sends until the connection is closed, and notes how much it got rid of."""

    def answer(exchange: Exchange) -> None:
        exchange.send(head(200, None, f"content-type: {kind}\r\n"))
        answer.sent = 0  # type: ignore[attr-defined]
        with suppress(OSError):
            for piece in pieces:
                exchange.send(chunk(piece))
                answer.sent += len(piece)  # type: ignore[attr-defined]
                time.sleep(pause)

    return answer


FLOODS = {
    "ten gigabytes of JSON": ("application/json", [PIECE]),
    "ten gigabytes of one event": ("text/event-stream", [b"data: " + PIECE[:1_000]]),
    "ten gigabytes of comments": ("text/event-stream", [b": " + PIECE + b"\n"]),
    "ten gigabytes of other events": ("text/event-stream", [event("other", {"x": "y" * 60_000})]),
    "events without end": ("text/event-stream", [event("other", {}) * 500]),
    "text without end": ("text/event-stream", [text("x" * 60_000)]),
}


@pytest.mark.parametrize("name", FLOODS)
def test_flood_is_cut_off_early(far: Far, name: str) -> None:
    kind, pieces = FLOODS[name]
    flood = endless(itertools.cycle(pieces), kind=kind)
    far.service.otherwise = flood
    run = far.ask()
    assert (run.status, run.error["code"]) == ("failed", "remote_failed")  # type: ignore[index]
    assert flood.sent < GIB / 16 and far.door.held == 0


@pytest.mark.parametrize("bytes_", [b": still here\n\n", text("a")])
def test_answer_that_never_ends_is_ended_by_the_runs_deadline(
    tmp_path: Path, redis_server: RedisServer, bytes_: bytes
) -> None:
    with house.far(
        tmp_path, redis_server.url, endless(itertools.repeat(bytes_), 0.05), run_timeout=2.0
    ) as far:
        run = far.ask()
        assert (run.status, run.error["code"]) == ("failed", "run_timeout")  # type: ignore[index]
        assert far.service.hung_up.wait(60) or far.door.held == 0


def test_loop_of_model_calls_ends_at_the_agents_steps(tmp_path: Path, redis_server: RedisServer) -> None:
    statuses: list[int] = []

    def loops(exchange: Exchange) -> None:
        statuses.extend(far.door.post(exchange.json["run_token"]).status_code for _ in range(12))
        whole({"status": "failed"})(exchange)

    with house.far(tmp_path, redis_server.url, loops, silence=20) as far:
        run = far.ask()
    assert (run.status, run.error["code"]) == ("failed", "run_limit")  # type: ignore[index]
    assert statuses == [200] * 5 + [403] * 7


def test_tool_events_of_a_loop_are_told_up_to_a_bound(far: Far) -> None:
    called = [
        event("tool.called", {"call_id": f"c{number}", "name": "look", "arguments": {}})
        for number in range(2_100)
    ]
    far.service.script = [streams(*called, text("Good day."), completed())]
    events = far.stream()
    assert sum(one.name is Event.TOOL_CALLED for one in events) == 2_000
    assert [one.name for one in events if one.name.is_last] == [Event.RUN_COMPLETED]


def test_redirect_to_an_inner_address_is_not_followed(far: Far) -> None:
    inner = WireServer(whole(SUCCEEDED))
    try:
        for status in (301, 302, 303, 307, 308):
            answer = head(status, 0, f"location: {inner.url}/latest/meta-data\r\n")
            far.service.script = [lambda exchange, answer=answer: exchange.send(answer)]  # type: ignore[misc]
            run = far.ask()
            assert run.error["code"] == "remote_failed"  # type: ignore[index]
        assert inner.requests == []
    finally:
        inner.stop()


def test_lies_about_usage_in_every_place_change_no_row_of_the_ledger(far: Far) -> None:
    lie = {"input_tokens": -(10**12), "output_tokens": 10**12, "cost_usd": "-1000", "cost_nano": -(10**12)}
    far.service.script = [
        streams(
            event("usage", {"step": 1, **lie}),
            event("step.started", {"step": 1, "kind": "model"}),
            text("Good day."),
            completed(usage=lie, steps=-5, model="claude-haiku-5-5", **lie),
        )
    ]
    run = far.ask()
    assert (run.status, run.cost_nano, far.door.spent, far.door.held) == ("succeeded", 0, 0, 0)
    assert far.door.rows() == [] and run.usage.output_tokens == 0
