"""Interruption of a turn in the middle of a tool, an approval, a task or a tree; the next one knows what was done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service import approvals
from service.errors import AlreadyDecided
from service.runs import tool_execution
from service.store import tool_calls
from service.store.approvals import Decision
from service.types import Caller, Event, Run, RunStatus
from service.wiring import Services
from tests.conftest import RedisServer, wait_until
from tests.llm.wire_server import WireServer
from tests.runs import inside, interrupts, newsroom
from tests.runs.newsroom import PLAN, Script
from tests.runs.scripted import REACT, Upstream, call, calls, holds, message, says
from tests.runs.test_kept_output import and_then_silence, says_and_calls
from tests.runs.turns import Listener, begin, history_of, said, shown, turn

SPEC = REACT.replace("[echo, refund, odd]", "[pay, look]")
OPERATOR = Caller("usr_op", "op", "operator")
PAYS = says_and_calls("Let me pay. ", call("pay", {"order": "7"}))


@pytest.fixture
def make(
    tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> Iterator[Callable[..., Services]]:
    """Services with tools that a test holds, over either database."""
    interrupts.reset()
    (tmp_path / "agents" / "probe").mkdir(parents=True)
    (tmp_path / "agents" / "probe" / "tools.py").write_text(interrupts.TOOLS)
    with ExitStack() as opened:

        def one(spec: str = SPEC) -> Services:
            agents, model = {"probe": spec}, upstream.url
            wired = inside.services(tmp_path, redis_server.url, model, agents, database_url=url)
            return opened.enter_context(wired)

        yield one
        interrupts.may_end.set()


class Interruption(threading.Thread):
    """A new turn that interrupts; `run` once it has ended."""

    def __init__(self, wired: Services, session_id: str, text: str = "Stop it!") -> None:
        super().__init__(daemon=True)
        self._ask = lambda: turn(wired, session_id, text, on_conflict="interrupt")
        self.start()

    def run(self) -> None:
        self.result = self._ask()

    def ended(self) -> Run:
        self.join(30)
        return self.result


def is_cancelled(wired: Services, run_id: str) -> Callable[[], bool]:
    def look() -> bool:
        handle = wired.runs.execution.slots.get(run_id)
        return handle is not None and handle.reason == "cancelled"

    return look


def status_of_calls(wired: Services, run_id: str) -> dict[str, str]:
    found = wired.infra.db.query(lambda tx: tool_calls.of_run(tx, run_id))
    return {row["name"]: row["status"] for row in found.values()}


def test_outcome_of_a_tool_in_flight_is_kept(make: Callable[..., Services], upstream: WireServer) -> None:
    wired = make()
    session_id = begin(wired)
    upstream.script += [PAYS, message(says("I paid it."))]
    heard = Listener(wired, session_id, "Pay order 7.")
    assert interrupts.begun.wait(60)
    interruption = Interruption(wired, session_id)
    wait_until(is_cancelled(wired, heard.run_id), "the cancellation")
    interrupts.may_end.set()
    assert interruption.ended().status is RunStatus.SUCCEEDED
    assert heard.last() is Event.RUN_CANCELLED and len(upstream.requests) == 2
    assert [one.name for one in heard.events].count(Event.TOOL_FINISHED) == 1
    assert status_of_calls(wired, heard.run_id) == {"pay": "done"}
    question, answer, *_ = shown(wired, session_id)
    assert (question["status"], answer["content"], answer["status"]) == (
        "cancelled",
        "Let me pay. ",
        "cancelled",
    )
    assert [(use["name"], use["ok"]) for use in answer["tools"]] == [("pay", True)]
    asked, told, new = history_of(upstream.requests[-1])
    assert asked[1].startswith("Pay order 7.|<turn") and "Tools called: pay (done)." in asked[1]
    assert (told, new) == (("assistant", "Let me pay. "), ("user", "Stop it!"))
    assert interrupts.made == ["paid 7"] and holds(wired) == 0


def test_outcome_that_does_not_come_is_unknown(
    make: Callable[..., Services], upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tool_execution, "TOOL_GRACE", 0.3)
    wired = make()
    session_id = begin(wired)
    upstream.script += [PAYS, message(says("I cannot tell."))]
    heard = Listener(wired, session_id, "Pay order 7.")
    assert interrupts.begun.wait(60)
    assert Interruption(wired, session_id).ended().status is RunStatus.SUCCEEDED
    assert heard.last() is Event.RUN_CANCELLED
    [finished] = [event.data for event in heard.events if event.name is Event.TOOL_FINISHED]
    assert (finished["ok"], finished["unknown"]) == (False, True)
    assert finished["preview"].startswith(
        "pay had not ended when its run was cancelled; it may still take effect"
    )
    assert status_of_calls(wired, heard.run_id) == {"pay": "unknown"}
    cancelled = wired.runs.queries.get(heard.run_id)
    assert cancelled.result is not None
    assert [(use["name"], use["ok"], use["unknown"]) for use in cancelled.result["tools"]] == [
        ("pay", False, True)
    ]
    assert "Tools called: pay (outcome unknown)." in history_of(upstream.requests[-1])[0][1]
    assert holds(wired) == 0 and wired.sessions.unfinished(session_id) == []


def test_a_tool_that_only_reads_is_not_waited_for(
    make: Callable[..., Services], upstream: WireServer
) -> None:
    wired = make()
    session_id = begin(wired)
    upstream.script += [
        says_and_calls("I look. ", call("look", {"order": "7"})),
        message(says("As you wish.")),
    ]
    heard = Listener(wired, session_id, "Find order 7.")
    assert interrupts.begun.wait(60)
    assert Interruption(wired, session_id).ended().status is RunStatus.SUCCEEDED
    assert heard.last() is Event.RUN_CANCELLED
    [finished] = [event.data for event in heard.events if event.name is Event.TOOL_FINISHED]
    assert finished["preview"] == "look had not ended when its run was cancelled", "and not its own time-out"
    assert "look (failed)" in history_of(upstream.requests[-1])[0][1]


def test_a_turn_that_waits_for_an_approval(make: Callable[..., Services], upstream: WireServer) -> None:
    wired = make(SPEC + "approvals: [pay]\n")
    session_id = begin(wired)
    upstream.script += [calls(says("May I? "), call("pay", {"order": "7"})), message(says("Then not."))]
    waits = turn(wired, session_id, "Pay order 7.")
    assert waits.status is RunStatus.WAITING_APPROVAL and waits.result is not None
    [approval] = waits.result["approvals"]
    assert turn(wired, session_id, "Do not.", on_conflict="interrupt").status is RunStatus.SUCCEEDED
    assert wired.runs.queries.get(waits.id).status is RunStatus.CANCELLED
    yes = Decision("approve", None, None, "dec_1")
    with pytest.raises(AlreadyDecided):
        wired.infra.db.transact(lambda tx: approvals.decide(tx, OPERATOR, approval, yes))
    assert interrupts.made == []
    assert [status for _, _, status in said(wired, session_id)][:2] == ["cancelled", "cancelled"]
    assert "<turn" in history_of(upstream.requests[-1])[0][1]


def test_a_task_under_way(make: Callable[..., Services], upstream: WireServer) -> None:
    wired = make()
    session_id = begin(wired)
    upstream.script += [and_then_silence("It begins"), message(says("Something else."))]
    task = wired.runs.start.queue(
        inside.ADA, inside.request("Write a book.", session_id=session_id), None, "req"
    ).run
    worker = threading.Thread(target=wired.runs.execution.take_turn, args=(task.id,))
    worker.start()
    wait_until(lambda: len(upstream.requests) == 1, "its model call")
    wait_until(lambda: wired.runs.queries.so_far(task.id)[-1].name is Event.TEXT_DELTA, "its text")
    assert turn(wired, session_id, "Else.", on_conflict="interrupt").status is RunStatus.SUCCEEDED
    worker.join(60)
    assert said(wired, session_id)[1] == ("assistant", "It begins", "cancelled")
    asked, told, _ = history_of(upstream.requests[-1])
    assert "<turn" in asked[1] and told == ("assistant", "It begins")


def test_sub_agents_side_by_side(tmp_path: Path, redis_server: RedisServer, url: str) -> None:
    script = Script(PLAN, {"Write": and_then_silence("Cats"), "Work": and_then_silence("Dogs")})
    upstream = Upstream(script)
    with newsroom.services(tmp_path, redis_server.url, upstream.url, database_url=url) as wired:
        session_id = begin(wired)
        heard = Listener(wired, session_id, "Of cats and dogs.", cache="bypass")
        wait_until(lambda: len(script.asked) == 2, "the calls of both")
        script.replies = {}
        assert turn(wired, session_id, "Of birds.", on_conflict="interrupt").status is RunStatus.SUCCEEDED
        assert heard.last() is Event.RUN_CANCELLED
        assert "<turn" in str(script.bodies[3]["messages"]), "the next plan knows of it"
        assert holds(wired) == 0 and wired.sessions.unfinished(session_id) == []
    upstream.stop()
