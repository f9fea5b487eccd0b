"""The run result, which `invoke` answers with and the last event carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service.runs.replay import standing_text
from service.store.database import Row
from service.text import exact_json
from service.types import Answer, Event, Run, RunEvent, RunStatus, ToolUse, rfc3339


def result_of(
    run: Run,
    answer: Answer | None,
    *,
    steps: int,
    used: Sequence[ToolUse],
    told: str = "",
    clamped: int | None = None,
    approvals: Sequence[str] = (),
) -> dict[str, Any]:
    """The contract's run result, of a run that has ended or waits; a failed one carries its `error`.

    `told`: the text its clients were told, which is the output of a run without an answer.
    `clamped`: the tokens an answer was limited to because a spending cap had room for no more.
    `approvals`: ids of what a person has to decide, shown while the run waits for that.
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
        "output": answer.output if answer else told,
        "structured": None,
        "stop_reason": answer.stop_reason if answer else None,
        "model": answer.model if answer else None,
        "tier": run.tier,
        "steps": steps,
        "tools": [{"name": use.name, "ok": use.ok, "ms": use.ms} for use in used],
        "sources": list(answer.sources) if answer else [],
        "usage": run.usage.public(run.cost_nano, run.usage_source),
        "cache": run.cache,
        "latency_ms": (run.finished_at - run.created_at) if run.finished_at else None,
        "created_at": rfc3339(run.created_at),
        "finished_at": rfc3339(run.finished_at),
    }
    if run.status is RunStatus.WAITING_APPROVAL:
        result["approvals"] = list(approvals)
    if run.request.metadata is not None:
        result["metadata"] = exact_json.to_stored(run.request.metadata)  # `shown` puts it into an answer
    if clamped is not None:
        result["max_tokens_clamped"] = clamped
    if run.error is not None:
        result["error"] = run.error
    return result


def started_of(run: Run) -> dict[str, Any]:
    """Data of `run.started`."""
    return {
        "run_id": run.id,
        "agent": run.agent,
        "agent_version": run.agent_version,
        "session_id": run.request.session_id,
    }


def unanswered(
    run: Run,
    events: Sequence[RunEvent],
    steps: int,
    *,
    clamped: int | None = None,
    approvals: Sequence[str] = (),
) -> dict[str, Any]:
    """Build the result of a run without an answer from the events it has told."""
    told, used = standing_text(events), tools_used(events)
    return result_of(run, None, steps=steps, used=used, told=told, clamped=clamped, approvals=approvals)


def result_of_kept(run: Run, kept: Sequence[Row], approvals: Sequence[str] = ()) -> dict[str, Any]:
    """Build the result of a run without an answer that no worker drives, from the rows of its steps."""
    events = [RunEvent(Event(name), data, seq) for row in kept for seq, name, data in row["events"]]
    steps = sum(row["kind"] in ("model", "tools") for row in kept)
    return unanswered(run, events, steps, approvals=approvals)


def tools_used(events: Sequence[RunEvent]) -> list[ToolUse]:
    """List the tool calls that have ended, as events tell of them."""
    names = {event.data["call_id"]: event.data["name"] for event in events if event.name is Event.TOOL_CALLED}
    ended = [event.data for event in events if event.name is Event.TOOL_FINISHED]
    # Whatever a run told, its end can be told too.
    return [
        ToolUse(names.get(call["call_id"], ""), bool(call.get("ok")), call.get("ms", 0)) for call in ended
    ]


def shown(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A kept run result, or an event's data, as clients see it: `metadata` may be kept as JSON text."""
    if "metadata" not in data:
        return data
    return {**data, "metadata": exact_json.embedded(data["metadata"])}
