"""Calls of one reply: those that only read run side by side, all others in their order, and clients see the order."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from service.errors import AgentStopped
from service.guardrails.taint import Taint
from service.llm.client import ModelReply
from service.runs.proposed_calls import proposed, side_by_side
from service.runs.slots import HandedOver
from service.store import workers
from service.tools import tool
from service.types import Event, RunStatus, Usage
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted
from tests.runs.scripted import call, stream_of
from tests.runs.test_kept_output import says_and_calls
from tests.runs.test_tool_execution import PAY, Desk


class Readers(Desk):
    """A desk with `meet`, which returns once `parties` calls of it are under way, and `read`."""

    def __init__(self, wired: Services, parties: int) -> None:
        super().__init__(wired)
        together = threading.Barrier(parties)

        @tool(idempotent=True, risk="read")
        def meet(text: str) -> str:
            """Meet."""
            together.wait(30)
            return f"met {text}"

        @tool(idempotent=True, risk="read")
        def read(text: str) -> str:
            """Read."""
            self.made.append(f"read {text}")
            self.while_called()
            return f"read {text}"

        self.agent = replace(self.agent, tools={**self.agent.tools, "meet": meet, "read": read})

    def seen(self, name: Event) -> list[Any]:
        return [event.data["call_id"] for event in self.told if event.name is name]


HOOK: list[Callable[[], object]] = []  # called within `peek`
SPEC = scripted.REACT.replace("[echo,", "[peek, echo,").replace("steps: 3", "steps: 5")
PEEK = """

from tests.runs.test_calls_side_by_side import HOOK


@tool(idempotent=True, risk="read")
def peek(text: str) -> str:
    \"Look at it.\"
    for act in HOOK:
        act()
    return text
"""


def reads(name: str, many: int) -> list[dict[str, Any]]:
    return [call(name, {"text": str(n)}, f"toolu_{name}_{n}") for n in range(many)]


def test_reading_calls_run_side_by_side_and_answer_in_order(wired: Services) -> None:
    desk, uses = Readers(wired, parties=8), reads("meet", 8)
    assert [result.content for result in desk.use(*uses)] == [f"met {n}" for n in range(8)]
    desk.journal.commit()
    ids = [use["id"] for use in uses]
    assert desk.seen(Event.TOOL_CALLED) == desk.seen(Event.TOOL_FINISHED) == ids


def test_call_that_changes_something_waits_for_those_before_it(wired: Services) -> None:
    desk = Readers(wired, parties=1)
    first, last = reads("read", 2)
    assert [result.content for result in desk.use(first, PAY, last)] == ["read 0", "made 1", "read 1"]
    assert desk.made == ["read 0", "1", "read 1"]


def test_no_more_than_so_many_at_once(wired: Services) -> None:
    desk = Readers(wired, parties=1)
    reply = ModelReply("m", [*reads("read", 19), PAY], "tool_use", Usage())
    calls = proposed(reply, desk.agent, {}, [], Taint())
    assert [len(group) for group in side_by_side(calls, 8)] == [8, 8, 3, 1]


@pytest.mark.parametrize("why", ["drain", "stop"])
def test_next_calls_are_not_begun_once_the_run_must_stop(wired: Services, why: str) -> None:
    desk = Readers(wired, parties=1)

    def stop() -> None:
        if why == "drain":
            desk.handle.stop("drain")
        else:
            wired.infra.db.transact(lambda tx: wired.runs.stops.stop(tx, "probe", "Enough."))

    desk.while_called = stop
    with pytest.raises((HandedOver, AgentStopped)):
        desk.use(*reads("read", 2), PAY, *reads("meet", 1))
    desk.journal.hand_over()
    assert sorted(desk.made) == ["read 0", "read 1"] and desk.statuses() == {}


def test_resumed_run_tells_of_each_call_once_and_in_order(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another worker goes on in the middle of ten reading calls: eight of them were made."""
    monkeypatch.setattr(scripted, "TOOLS", scripted.TOOLS + PEEK)
    uses = reads("peek", 10)
    upstream.script = [says_and_calls("", *uses), stream_of("Done.")]
    with scripted.services(tmp_path, redis_server.url, upstream, SPEC, database_url=url) as wired:
        worker_id = wired.runs.execution.worker_id
        wired.infra.db.transact(lambda tx: workers.register(tx, worker_id, "web", "here", 1, 60_000))
        run = wired.runs.start.queue(inside.ADA, inside.request("Do it.", cache="bypass"), None, "req").run
        HOOK[:] = [lambda: [handle.stop("drain") for handle in wired.runs.execution.slots.all()]]
        assert wired.runs.execution.take_up(run.id)
        HOOK.clear()
        assert wired.runs.queries.get(run.id).status is RunStatus.QUEUED
        assert wired.runs.execution.take_up(run.id)
        ended = wired.runs.queries.get(run.id)
        events = wired.runs.queries.so_far(run.id)
    assert ended.status is RunStatus.SUCCEEDED
    ids = [use["id"] for use in uses]
    for name in (Event.TOOL_CALLED, Event.TOOL_FINISHED):
        assert [event.data["call_id"] for event in events if event.name is name] == ids
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
