"""Tool calls of a fork: answered from the record of the forked run. Nothing is claimed, asked or changed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events
from service.llm.client import ModelReply
from service.runs.attempt import Attempt
from service.runs.call_record import CallRecord
from service.runs.proposed_calls import Call, called, finished, proposed
from service.tools import ToolResult
from service.types import Block, Event

NOT_MADE = "This call was not made: in a fork, tools answer from the record, which has no such call."
MakeCall = Callable[[Call], ToolResult]


def from_record(
    agent: AgentDefinition, attempt: Attempt, started: dict[str, Any], reply: ModelReply, make: MakeCall
) -> Events[list[ToolResult]]:
    """Answer the calls of a reply, in order; return one result per call. `make` makes one of a local tool."""
    journal, record = attempt.journal, attempt.record
    assert record is not None
    yield from journal.commit()
    yield from journal.publish(Event.STEP_STARTED, started)
    uses = reply.tool_uses
    results: list[ToolResult] = []
    for number, call in enumerate(proposed(reply, agent, {}, [], attempt.taint)):
        attempt.handle.check()
        yield from journal.publish(Event.TOOL_CALLED, called(call, agent.marker))
        results.append(_result(call, record, uses[: number + 1], make))
        journal.publish_after_commit(Event.TOOL_FINISHED, finished(call, results[-1]))
    return results


def _result(call: Call, record: CallRecord, uses: Sequence[Block], make: MakeCall) -> ToolResult:
    if call.tool is None:  # also one that the user of the fork may not use
        return ToolResult.failed(call.verdict.reason)
    found = record.find(uses[-1], uses[:-1])
    if found is not None:
        return found
    if call.verdict.action == "deny":
        return ToolResult.failed(call.verdict.reason)
    if call.verdict.action == "allow" and call.tool.local:
        return make(call)
    return ToolResult.failed(NOT_MADE)
