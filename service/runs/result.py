"""The run result: what `invoke` answers with and what the last event carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.types import Answer, Run, ToolUse, rfc3339


def result_of(
    run: Run,
    answer: Answer | None,
    *,
    steps: int,
    used: Sequence[ToolUse],
    told: str = "",
    clamped: int | None = None,
) -> dict[str, Any]:
    """The contract's run result, of a run that has ended or waits; a failed one carries its `error`.

    `told`: the text its clients were told, which is the output of a run without an answer.
    `clamped`: the tokens an answer was limited to because a spending cap had room for no more.
    """
    result: dict[str, Any] = {
        "run_id": run.id,
        "session_id": run.request.session_id,
        "agent": run.agent,
        "status": run.status,
        "output": answer.output if answer else told,
        "stop_reason": answer.stop_reason if answer else None,
        "model": answer.model if answer else None,
        "tier": run.tier,
        "steps": steps,
        "tools": [{"name": use.name, "ok": use.ok, "ms": use.ms} for use in used],
        "sources": list(answer.sources) if answer else [],
        "usage": run.usage.public(run.cost_nano),
        "cache": run.cache,
        "latency_ms": (run.finished_at - run.created_at) if run.finished_at else None,
        "created_at": rfc3339(run.created_at),
        "finished_at": rfc3339(run.finished_at),
    }
    if run.request.metadata is not None:
        result["metadata"] = dict(run.request.metadata)
    if clamped is not None:
        result["max_tokens_clamped"] = clamped
    if run.error is not None:
        result["error"] = run.error
    return result
