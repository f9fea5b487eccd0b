"""Response objects: what the Responses API tells of a run, whether it is under way, waits or has ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.runs.client_tools import wire_id
from service.text import exact_json
from service.types import Run, RunStatus
from service.web.one_way import waiting_text
from service.web.openai.chat_lens import LENGTH
from service.web.openai.errors import problem_of_run

_STATUS = {
    RunStatus.QUEUED: "queued",
    RunStatus.PAUSED: "queued",
    RunStatus.FAILED: "failed",
    RunStatus.CANCELLED: "cancelled",
}


def response_id(run_id: str) -> str:
    return f"resp_{run_id.removeprefix('run_')}"


def response_of(run: Run, result: Mapping[str, Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """Build the response of a run, from its result so far; one that waits says so after its text.

    `fields` are those that the answer repeats from the request.
    """
    output = result.get("output", "")
    if run.status.waits:
        output = "\n\n".join(filter(None, [output, waiting_text(run.status, result.get("approvals", ()))]))
    if run.status is RunStatus.SUCCEEDED:
        return ended(run, result, fields, items_of(run, output, result))
    status = _STATUS.get(run.status, "in_progress")
    if run.status.waits and not fields["background"]:
        return unfinished(run, fields, "incomplete", run.status, items_of(run, output, result))
    whole = head(run, fields, status) | {"output": items_of(run, output, result, "in_progress")}
    if run.status.ended:
        whole |= {"completed_at": _seconds(run.finished_at), "usage": usage_of(result["usage"])}
        whole["output"] = items_of(run, output, result, "incomplete")
    if run.status is RunStatus.FAILED and run.error is not None:
        whole["error"] = error_of(run.error)
    return whole


def head(run: Run, fields: Mapping[str, Any], status: str) -> dict[str, Any]:
    """Build a response without output."""
    metadata = exact_json.embedded(exact_json.to_stored(run.request.metadata))
    return {
        "id": response_id(run.id),
        "object": "response",
        "created_at": run.created_at // 1000,
        "completed_at": None,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": run.agent,
        "output": [],
        "usage": None,
        "metadata": metadata if metadata is not None else {},
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        **fields,
    }


def ended(
    run: Run, result: Mapping[str, Any], fields: Mapping[str, Any], output: list[dict[str, Any]]
) -> dict[str, Any]:
    """Build the response of a run that has succeeded; one that met its token limit is incomplete."""
    cut = result["stop_reason"] in LENGTH
    whole = head(run, fields, "incomplete" if cut else "completed")
    if cut:
        whole["incomplete_details"] = {"reason": "max_output_tokens"}
    took = result["latency_ms"]
    return whole | {
        "output": output,
        "completed_at": _seconds(None if took is None else run.created_at + took),
        "usage": usage_of(result["usage"]),
    }


def unfinished(
    run: Run, fields: Mapping[str, Any], status: str, reason: str, output: list[dict[str, Any]]
) -> dict[str, Any]:
    """Build a response that ends without an answer, for a reason."""
    return head(run, fields, status) | {"incomplete_details": {"reason": reason}, "output": output}


def items_of(
    run: Run, text: str, result: Mapping[str, Any], status: str = "completed"
) -> list[dict[str, Any]]:
    """List the output: a message, unless there is no text, and the calls of the client's functions."""
    items = [message(run, 0, text, status)] if text else []
    return items + calls_of(run, result)


def calls_of(run: Run, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """List the calls of the client's functions."""
    return [
        {
            "id": f"fc_{run.id.removeprefix('run_')}_{number}",
            "type": "function_call",
            "status": "completed",
            "call_id": wire_id("call", run.id, call["id"]),
            "name": call["name"],
            "arguments": orjson.dumps(call["arguments"]).decode(),
        }
        for number, call in enumerate(result.get("client_calls", ()))
    ]


def message(run: Run, number: int, text: str | None, status: str) -> dict[str, Any]:
    """Build a message of the output; None: one that begins, without any content yet."""
    return {
        "id": f"msg_{run.id.removeprefix('run_')}_{number}",
        "type": "message",
        "status": status,
        "role": "assistant",
        "content": [] if text is None else [text_part(text)],
    }


def text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def error_of(problem: Mapping[str, Any]) -> dict[str, Any]:
    """Build the error of a failed response."""
    told = problem_of_run(problem)[0]["error"]
    return {"code": told["code"], "message": told["message"]}


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Convert usage: OpenAI's input tokens include the cached ones."""
    cached, written = usage["cache_read_input_tokens"], usage["cache_creation_input_tokens"]
    asked, answered = usage["input_tokens"] + cached + written, usage["output_tokens"]
    return {
        "input_tokens": asked,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
        "output_tokens": answered,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": asked + answered,
    }


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
