"""Run result: the body of `invoke`, and the data of the last event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.errors import SlipwayError
from service.runs.replay import valid_text
from service.store.database import Row
from service.text import exact_json
from service.types import Answer, Event, Run, RunEvent, RunStatus, ToolUse, rfc3339


class Progress(NamedTuple):
    """Progress of a run: model and tool steps done, tools used, and the text so far.

    `text`: published so far, the output of a run without an answer. `clamped`: token limit of an answer that a spending
    cap shortened. `budget`: data of the last `budget.required`.
    """

    steps: int = 0
    tools: Sequence[ToolUse] = ()
    text: str = ""
    clamped: int | None = None
    budget: Mapping[str, Any] | None = None

    @classmethod
    def of_events(cls, events: Sequence[RunEvent], steps: int, clamped: int | None = None) -> Progress:
        asked = [event.data for event in events if event.name is Event.BUDGET_REQUIRED]
        return cls(steps, tools_used(events), valid_text(events), clamped, asked[-1] if asked else None)


def result_of(
    run: Run, answer: Answer | None, progress: Progress, approvals: Sequence[str] = ()
) -> dict[str, Any]:
    """Build the API's run result for a run that has ended or waits; a failed or cancelled one includes its `error`.

    `approvals`: ids of pending approvals, shown while the run waits for them.
    """
    result: dict[str, Any] = {
        "run_id": run.id,
        "session_id": run.request.session_id,
        "agent": run.agent,
        "agent_version": run.agent_version,
        "status": run.status,
        "user_id": run.user_id,
        "door": run.door,
        "input": run.request.question,
        "output": answer.output if answer else progress.text,
        "structured": answer.structured if answer else None,
        "stop_reason": answer.stop_reason if answer else None,
        "model": answer.model if answer else None,
        "tier": run.tier,
        "steps": progress.steps,
        "tools": list(map(_shown_use, progress.tools)),
        "sources": list(answer.sources) if answer else [],
        "usage": run.usage.public(run.cost_nano, run.usage_source),
        "cache": run.cache,
        "latency_ms": (run.finished_at - run.created_at) if run.finished_at else None,
        "created_at": rfc3339(run.created_at),
        "finished_at": rfc3339(run.finished_at),
    }
    if run.status is RunStatus.WAITING_APPROVAL:
        result["approvals"] = list(approvals)
    if run.status is RunStatus.WAITING_BUDGET:
        result["waits_for"] = progress.budget
    if run.request.metadata is not None:
        result["metadata"] = exact_json.to_stored(run.request.metadata)  # decoded by `shown`
    if answer is not None and answer.stop_sequence is not None:
        result["stop_sequence"] = answer.stop_sequence
    if answer is not None and answer.client_calls:
        result["client_calls"] = list(answer.client_calls)
    if answer is not None and answer.repeated_calls:
        result["repeated_calls"] = list(answer.repeated_calls)
    if progress.clamped is not None:
        result["max_tokens_clamped"] = progress.clamped
    if run.error is not None:
        result["error"] = run.error
    return result


def problem_of(error: SlipwayError, run: Run) -> dict[str, Any]:
    """Build the problem object that a failed or cancelled run has as its `error`."""
    problem = {**error.as_problem(), "instance": f"/v1/runs/{run.id}", "request_id": run.request_id}
    if error.retry_after is not None:
        problem["retry_after"] = error.retry_after
    return problem


def started_of(run: Run) -> dict[str, Any]:
    """Build the data of `run.started`."""
    return {
        "run_id": run.id,
        "agent": run.agent,
        "agent_version": run.agent_version,
        "session_id": run.request.session_id,
    }


def result_of_steps(run: Run, steps: Sequence[Row], approvals: Sequence[str] = ()) -> dict[str, Any]:
    """Build the result of a run without an answer that executes nowhere, from its step rows."""
    events = [RunEvent(Event(name), data, seq) for row in steps for seq, name, data in row["events"]]
    done = sum(row["kind"] in ("model", "tools") for row in steps)
    return result_of(run, None, Progress.of_events(events, done), approvals)


def tools_used(events: Sequence[RunEvent]) -> list[ToolUse]:
    """List the finished tool calls, from a run's events."""
    names = {event.data["call_id"]: event.data["name"] for event in events if event.name is Event.TOOL_CALLED}
    ended = [event.data for event in events if event.name is Event.TOOL_FINISHED]
    # Lenient: the last event must be buildable whatever events a run has published.
    return [
        ToolUse(
            names.get(call["call_id"], ""),
            bool(call.get("ok")),
            call.get("ms", 0),
            bool(call.get("unknown")),
        )
        for call in ended
    ]


def lost_calls(claims: Mapping[str, Row], events: Sequence[RunEvent]) -> list[ToolUse]:
    """List claimed tool calls, by call id, of whose end no event tells: the worker died in the middle of them."""
    told = {event.data["call_id"] for event in events if event.name is Event.TOOL_FINISHED}
    return [
        ToolUse(row["name"], row["status"] == "done", 0, row["status"] in ("claimed", "unknown"))
        for call_id, row in claims.items()
        if call_id not in told
    ]


def _shown_use(use: ToolUse) -> dict[str, Any]:
    shown = {"name": use.name, "ok": use.ok, "ms": use.ms}
    return shown | {"unknown": True} if use.unknown else shown


def shown(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a stored run result or event data as clients see it: `metadata` may be stored as JSON text."""
    if "metadata" not in data:
        return data
    return {**data, "metadata": exact_json.embedded(data["metadata"])}
