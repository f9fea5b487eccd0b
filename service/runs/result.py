"""The run result, which `invoke` answers with and the last event carries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from service import exact_json
from service.types import Answer, Run, ToolUse, rfc3339


def result_of(
    run: Run, answer: Answer | None, *, steps: int, used: Sequence[ToolUse], clamped: int | None = None
) -> dict[str, Any]:
    """The contract's run result, of a run that has ended or waits; a failed one carries its `error`.

    `clamped`: the tokens an answer was limited to because a spending cap had room for no more.
    """
    result: dict[str, Any] = {
        "run_id": run.id,
        "session_id": run.request.session_id,
        "agent": run.agent,
        "agent_version": run.agent_version,
        "user_id": run.user_id,
        "door": run.door,
        "status": run.status,
        "output": answer.output if answer else "",
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
    if run.request.metadata is not None:
        result["metadata"] = exact_json.kept(run.request.metadata)  # `shown` puts it into an answer
    if clamped is not None:
        result["max_tokens_clamped"] = clamped
    if run.error is not None:
        result["error"] = run.error
    return result


def shown(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A kept run result, or an event's data, as clients see it: `metadata` may be kept as JSON text."""
    if "metadata" not in data:
        return data
    return {**data, "metadata": exact_json.embedded(data["metadata"])}
