"""Answers of Chat Completions: one JSON object, or chunks of a stream, from a run's result and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.runs.client_tools import wire_id
from service.types import Run
from service.web.one_way import OneWayLens, waiting_text
from service.web.openai.errors import broken, problem_of_run

LENGTH = ("max_tokens", "model_context_window_exceeded")
_DONE = b"data: [DONE]\n\n"


def completion(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """Build the answer from a run's result; one that waits says so after its text."""
    output = result["output"]
    if run.status.waits:
        output = "\n\n".join(filter(None, [output, waiting_text(run.status, result.get("approvals", ()))]))
    message: dict[str, Any] = {"role": "assistant", "content": output, "refusal": None, "annotations": []}
    if result.get("client_calls"):
        message |= {"content": output or None, "tool_calls": _calls(run, result)}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": _reason(result)}
    return {**_head(run, "chat.completion"), "choices": [choice], "usage": usage_of(result["usage"])}


def usage_of(usage: Mapping[str, Any]) -> dict[str, Any]:
    """Convert usage: OpenAI's prompt tokens include the cached ones."""
    cached = usage["cache_read_input_tokens"]
    asked = usage["input_tokens"] + cached + usage["cache_creation_input_tokens"]
    answered = usage["output_tokens"]
    return {
        "prompt_tokens": asked,
        "completion_tokens": answered,
        "total_tokens": asked + answered,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": 0,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


class ChatLens(OneWayLens):
    """Encodes a run's events as chunks. Text before a tool call is told too, with a blank line after it."""

    def __init__(self, run: Run, *, counts_usage: bool) -> None:
        super().__init__(run)
        self._head = _head(run, "chat.completion.chunk")
        self._counts_usage = counts_usage
        self._parts = False  # text came before a tool call

    def begin(self) -> bytes:
        return self._chunk({"role": "assistant", "content": "", "refusal": None})

    def text(self, piece: str) -> bytes:
        lead = "\n\n" if self._parts and not self.said else ""
        return self._chunk({"content": lead + piece})

    def part(self) -> bytes:
        self._parts = self._parts or bool(self.said)
        return b""

    def end(self, result: Mapping[str, Any] | None) -> bytes:
        if result is None:
            return self._chunk({}, "stop") + _DONE
        last = b""
        if result.get("client_calls"):
            calls = [{"index": number, **call} for number, call in enumerate(_calls(self.run, result))]
            last = self._chunk({"tool_calls": calls})
        last += self._chunk({}, _reason(result))
        if self._counts_usage:
            last += _data({**self._head, "choices": [], "usage": usage_of(result["usage"])})
        return last + _DONE

    def failed(self, problem: Mapping[str, Any]) -> bytes:
        return _data(problem_of_run(problem)[0]) + _DONE

    def broken(self, message: str, code: str) -> bytes:
        return _data(broken(message, code, self.run.request_id)) + _DONE

    def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        chunk = {**self._head, "choices": [choice]}
        return _data({**chunk, "usage": None} if self._counts_usage else chunk)


def _head(run: Run, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{run.id.removeprefix('run_')}",
        "object": kind,
        "created": run.created_at // 1000,
        "model": run.agent,
        "system_fingerprint": run.agent_version,
    }


def _calls(run: Run, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": wire_id("call", run.id, call["id"]),
            "type": "function",
            "function": {"name": call["name"], "arguments": orjson.dumps(call["arguments"]).decode()},
        }
        for call in result["client_calls"]
    ]


def _reason(result: Mapping[str, Any]) -> str:
    if result.get("client_calls"):
        return "tool_calls"
    return "length" if result["stop_reason"] in LENGTH else "stop"


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)
