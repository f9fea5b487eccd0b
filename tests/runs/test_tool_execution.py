"""Tool calls of one step over a real database: claimed before, reported after, approved where needed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa

from service import approvals
from service.audit.record import Action
from service.errors import RunCancelled, RunTimeout
from service.guardrails.taint import Taint
from service.llm.client import ModelReply
from service.runs.approval_requests import ApprovalRequests
from service.runs.attempt import Attempt
from service.runs.journal import Journal
from service.runs.slots import HandedOver, Handle, Reason
from service.runs.tool_execution import ToolExecution, WaitsForApproval
from service.store import runs as rows
from service.store import schema, tool_calls
from service.store import steps as step_rows
from service.store.approvals import Decision
from service.tools import Tool, ToolResult, ToolRunner, tool
from service.types import Block, Caller, Event, Run, RunEvent, RunStatus, Usage
from service.usage.rate_limits import SharedRateLimit
from service.wiring import Services
from tests.runs import inside
from tests.runs.scripted import call

OPERATOR = Caller("usr_ada", "ada", "operator")


class Desk:
    """One run of an agent with two tools, executed by hand. `made` are the calls of both."""

    def __init__(self, wired: Services, *, seconds: float = 60.0, **agent: Any) -> None:
        self.wired = wired
        self.made: list[str] = []
        self.told: list[RunEvent] = []
        self.while_called: Callable[[], object] = lambda: None
        self.rate = ""
        self.runner = ToolRunner()
        self.taint = Taint()
        tools = {one.name: one for one in self._tools(seconds)}
        self.agent = replace(wired.runs.start.new_runs.agent("probe"), tools=tools, **agent)
        self.run_id = wired.runs.start.queue(inside.ADA, inside.request("Do it."), None, "req").run.id
        self._take()

    def _tools(self, seconds: float) -> list[Tool]:
        def make(text: str) -> str:
            self.made.append(text)
            self.while_called()
            return f"made {text}"

        @tool(idempotent=True)
        def look(text: str) -> str:
            """Look."""
            return make(text)

        @tool(timeout=seconds)
        def pay(text: str) -> str:
            """Pay."""
            return make(text)

        return [look, pay]

    def _take(self) -> None:
        """Begin the next attempt."""
        worker_id = self.wired.runs.execution.worker_id
        assert self.wired.infra.db.transact(lambda tx: rows.claim(tx, self.run_id, worker_id))
        self.run: Run = self.wired.runs.queries.get(self.run_id)
        kept = self.wired.infra.db.query(lambda tx: step_rows.of_run(tx, self.run_id))
        self.journal = Journal(self.wired.infra.db, self.run, self.told.extend, stored=kept)

    def take_up(self) -> None:
        """Begin the next attempt as after a crash of the worker."""
        free = sa.update(schema.runs).values(status=RunStatus.QUEUED, worker_id=None)
        self.wired.infra.db.transact(lambda tx: tx.execute(free))
        self._take()

    def use(self, *uses: Block, unreadable: frozenset[str] = frozenset()) -> list[ToolResult]:
        rate = SharedRateLimit(self.wired.infra.redis_store, "desk", self.rate)
        requests = ApprovalRequests(self.wired.webhooks, seconds=0)
        execution = ToolExecution(self.wired.infra.db, self.runner, rate, requests)
        reply = ModelReply("m", list(uses), "tool_use", Usage(), unreadable=unreadable)
        self.handle = Handle(self.run_id, 60, self.run.attempt)
        attempt = Attempt(self.run, self.journal, self.handle)
        attempt.taint = self.taint
        using = execution.use(self.agent, attempt, {"step": 1}, reply)
        while True:
            try:
                next(using)
            except StopIteration as done:
                results: list[ToolResult] = done.value
                return results

    def statuses(self) -> dict[str, str]:
        """Statuses of the calls that have a row, by id."""
        claims = self.wired.infra.db.query(lambda tx: tool_calls.of_run(tx, self.run_id))
        return {call_id: row["status"] for call_id, row in claims.items()}

    def decide(self, approval_id: str, said: Any, arguments: dict[str, Any] | None = None) -> None:
        decision = Decision(said, None, arguments, "dec_1")
        self.wired.infra.db.transact(lambda tx: approvals.decide(tx, OPERATOR, approval_id, decision))
        self._take()


PAY = call("pay", {"text": "1"}, "toolu_pay")
LOOK = call("look", {"text": "2"}, "toolu_look")
PAY_TOO = call("pay", {"text": "3"}, "toolu_pay_too")


def test_call_is_claimed_before_and_reported_after(wired: Services) -> None:
    desk, seen = Desk(wired), list[dict[str, str]]()
    desk.while_called = lambda: seen.append(desk.statuses())
    assert [result.content for result in desk.use(PAY, LOOK)] == ["made 1", "made 2"]
    assert seen[0] == {"toolu_pay": "claimed"} and desk.statuses() == {"toolu_pay": "done"}


def test_call_that_changes_something_is_audited_before_and_after(wired: Services) -> None:
    desk = Desk(wired)
    reads = replace(desk.agent.tools["look"], risk="read")
    desk.agent = replace(desk.agent, tools={**desk.agent.tools, "look": reads})
    desk.use(LOOK)
    assert audited(wired) == []
    seen: list[Any] = []
    desk.while_called = lambda: seen.append(audited(wired))
    desk.use(PAY)
    called = (Action.TOOL_CALLED, "ok", f"run:{desk.run_id}", "pay", "toolu_pay")
    assert seen == [[called]]
    assert audited(wired) == [called, (Action.TOOL_FINISHED, *called[1:])]


def audited(wired: Services) -> list[tuple[str, ...]]:
    found = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.audit).order_by(schema.audit.c.id)))
    return [
        (row["action"], row["result"], row["subject"], row["details"]["tool"], row["details"]["call"])
        for row in found
        if row["action"] in (Action.TOOL_CALLED, Action.TOOL_FINISHED)
    ]


def test_reported_call_is_not_repeated(wired: Services) -> None:
    desk = Desk(wired)
    first = desk.use(PAY, LOOK)
    desk.take_up()
    assert [result.content for result in desk.use(PAY, LOOK)] == [result.content for result in first]
    assert desk.made == ["1", "2", "2"]


def test_unreported_call_needs_an_approval(wired: Services) -> None:
    desk, over = Desk(wired, seconds=2.0), threading.Event()

    def die() -> None:
        desk.while_called = lambda: None
        over.wait(60)  # longer than the tool may take: nobody hears of its end

    desk.while_called = die
    with pytest.raises(WaitsForApproval):
        desk.use(PAY)
    assert desk.statuses() == {"toolu_pay": "unknown"}
    [asked] = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals)))
    assert (asked["reason"], asked["call_id"]) == ("unknown", "toolu_pay")
    desk.decide(asked["id"], "approve")
    assert [result.ok for result in desk.use(PAY)] == [True]
    assert desk.made == ["1", "1"] and desk.statuses() == {"toolu_pay": "done"}
    over.set()


def test_call_after_one_that_timed_out_is_made_without_a_person(wired: Services) -> None:
    desk, over = Desk(wired, seconds=1.0), threading.Event()

    def die() -> None:
        desk.while_called = lambda: None
        over.wait(60)

    desk.while_called = die
    with pytest.raises(WaitsForApproval):
        desk.use(PAY, PAY_TOO)
    assert desk.statuses() == {"toolu_pay": "unknown"}
    [asked] = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals)))
    desk.decide(asked["id"], "approve")
    assert [result.content for result in desk.use(PAY, PAY_TOO)] == ["made 1", "made 3"]
    assert desk.made == ["1", "1", "3"]
    over.set()


def test_calls_left_at_a_drain_are_made_by_the_next_worker_without_a_person(wired: Services) -> None:
    desk = Desk(wired)
    desk.while_called = lambda: desk.handle.stop("drain")
    with pytest.raises(HandedOver):
        desk.use(PAY, PAY_TOO, LOOK)
    desk.journal.hand_over()
    assert desk.made == ["1"] and desk.statuses() == {"toolu_pay": "done"}
    desk.while_called = lambda: None
    desk._take()
    assert [result.content for result in desk.use(PAY, PAY_TOO, LOOK)] == ["made 1", "made 3", "made 2"]
    assert desk.made == ["1", "3", "2"]


def test_approved_call_that_is_not_made_again_stays_unknown_and_approved(wired: Services) -> None:
    desk, over = Desk(wired, seconds=1.0), threading.Event()
    desk.while_called = lambda: desk.made[-1] == "1" and over.wait(60)
    with pytest.raises(WaitsForApproval):
        desk.use(LOOK, PAY)
    [asked] = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.approvals)))
    desk.decide(asked["id"], "approve")
    desk.while_called = lambda: desk.handle.stop("drain")
    with pytest.raises(HandedOver):
        desk.use(LOOK, PAY)
    desk.journal.hand_over()
    assert desk.statuses() == {"toolu_pay": "unknown"}
    desk.while_called = lambda: None
    desk._take()
    assert [result.ok for result in desk.use(LOOK, PAY)] == [True, True]
    assert desk.made == ["2", "1", "2", "2", "1"]
    over.set()


@pytest.mark.parametrize("reason", ["timeout", "cancelled"])
def test_calls_left_at_the_end_of_a_run_are_recorded_as_refused(wired: Services, reason: Reason) -> None:
    """So that a run that is queued again by hand makes them."""
    desk = Desk(wired)
    desk.while_called = lambda: desk.handle.stop(reason)
    with pytest.raises((RunTimeout, RunCancelled)):
        desk.use(PAY, PAY_TOO)
    desk.journal.finish(RunStatus.FAILED, lambda: (Event.RUN_FAILED, {}))
    assert desk.made == ["1"] and desk.statuses() == {"toolu_pay": "done"}
    finished = [row[1:] for row in audited(wired) if row[0] == Action.TOOL_FINISHED]
    assert [(result, called) for result, _, _, called in finished] == [
        ("ok", "toolu_pay"),
        ("refused", "toolu_pay_too"),
    ]


def test_pending_approval_blocks_every_call_of_the_step(wired: Services) -> None:
    desk = Desk(wired, approvals=("pay",))
    with pytest.raises(WaitsForApproval) as waits:
        desk.use(LOOK, PAY)
    assert desk.made == [] and desk.statuses() == {}
    [approval_id] = waits.value.approvals
    desk.decide(approval_id, "approve", {"text": "3"})
    assert [result.content for result in desk.use(LOOK, PAY)] == ["made 2", "made 3"]


def test_denied_call_fails_without_blocking_the_others(wired: Services) -> None:
    desk = Desk(wired, approvals=("pay",))
    with pytest.raises(WaitsForApproval) as waits:
        desk.use(LOOK, PAY)
    desk.decide(waits.value.approvals[0], "deny")
    looked, paid = desk.use(LOOK, PAY)
    assert (looked.ok, paid.ok, paid.content) == (True, False, "A person denied this call.")
    assert desk.made == ["2"] and desk.statuses() == {}


def test_impossible_call_fails_with_its_reason(wired: Services) -> None:
    desk = Desk(wired)
    gone = call("gone", {}, "toolu_gone")
    results = desk.use(gone, PAY, LOOK, unreadable=frozenset({"toolu_pay"}))
    assert [result.ok for result in results] == [False, False, True]
    assert results[0].content == "There is no tool named gone."
    assert results[1].content.startswith("The arguments could not be read")
    assert desk.made == ["2"] and desk.statuses() == {}


def test_call_over_the_rate_limit_fails(wired: Services) -> None:
    desk = Desk(wired)
    desk.rate = "1/hour"
    looked, paid = desk.use(LOOK, PAY)
    assert (looked.ok, paid.ok) == (True, False) and paid.content.startswith("Too many tool calls.")
    assert desk.made == ["2"] and desk.statuses() == {"toolu_pay": "failed"}
