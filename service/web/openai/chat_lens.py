"""Answers of Chat Completions: one JSON object, or chunks of a stream, from a run's result and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.runs.client_tools import wire_id
from service.types import Event, Run, RunEvent
from service.web.openai.errors import broken, problem_of_run

_LENGTH = ("max_tokens", "model_context_window_exceeded")
_DONE = b"data: [DONE]\n\n"


def completion(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """Build the answer from a run's result; one that waits for a person says so after its text."""
    output = result["output"]
    if result.get("approvals"):
        output = _joined(output, waiting_text(result["approvals"]))
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


def waiting_text(approvals: Sequence[str]) -> str:
    return f"[Waiting for a person to approve: {', '.join(approvals)}]"


class ChatLens:
    """Encodes a run's events as chunks. The dialect cannot take text back, so a void text is never followed by another.

    Text before a tool call is told too, with a blank line after it.
    """

    mimetype = "text/event-stream"
    heartbeat = b": keep-alive\n\n"

    def __init__(self, run: Run, *, counts_usage: bool) -> None:
        self._run = run
        self._head = _head(run, "chat.completion.chunk")
        self._counts_usage = counts_usage
        self._said = ""  # of the answer: after the last tool call
        self._parts = False  # text came before a tool call
        self._void = (
            False  # text that was sent does not count any more, or some was lost: the end must repair it
        )
        self._approvals: list[str] = []
        self._ended = False

    def encode(self, events: Sequence[RunEvent]) -> bytes:
        """Encode events; empty for those that the dialect does not know."""
        return b"".join(self._encoded(event) for event in events if not self._ended)

    def _encoded(self, event: RunEvent) -> bytes:
        name, data = event.name, event.data
        if name is Event.TEXT_DELTA:
            return self._text(data["text"])
        if name is Event.RUN_STARTED:
            return self._chunk({"role": "assistant", "content": "", "refusal": None})
        if name is Event.TOOL_FINISHED and "branch" not in data:
            self._parts, self._said = self._parts or bool(self._said), ""
        elif name is Event.GAP or (name is Event.RUN_RESUMED and self._said):
            self._void = True
        elif name is Event.APPROVAL_REQUIRED:
            self._approvals.append(data["approval_id"])
        elif name is Event.APPROVAL_DECIDED and data["approval_id"] in self._approvals:
            self._approvals.remove(data["approval_id"])
        elif name is Event.RECONNECT:
            return self._left()
        elif name.is_last:
            return self._end(name, data)
        return b""

    def _text(self, text: str) -> bytes:
        if self._void:
            return b""
        lead = "\n\n" if self._parts and not self._said else ""
        self._said += text
        return self._chunk({"content": lead + text})

    def _end(self, name: Event, result: Mapping[str, Any]) -> bytes:
        if name is not Event.RUN_COMPLETED:
            body, _, _ = problem_of_run(result["error"])
            return self._broken(body)
        output, rest = result["output"], b""
        if self._void:
            if not output.startswith(self._said):
                return self._broken(
                    broken(
                        "The answer began anew after a part of it was sent.",
                        "answer_replaced",
                        self._run.request_id,
                    )
                )
            self._void = False
            rest = self._text(output[len(self._said) :]) if output != self._said else b""
        if result.get("client_calls"):
            calls = [{"index": number, **call} for number, call in enumerate(_calls(self._run, result))]
            rest += self._chunk({"tool_calls": calls})
        return rest + self._finish(_reason(result), result["usage"])

    def _left(self) -> bytes:
        """End the stream of a run that goes on elsewhere, or waits."""
        if self._approvals:
            note = self._chunk(
                {"content": _joined("\n\n" if self._said else "", waiting_text(self._approvals))}
            )
            return note + self._finish("stop", None)
        return self._broken(
            broken("The connection ends here; the run goes on.", "stream_ended", self._run.request_id)
        )

    def _finish(self, reason: str, usage: Mapping[str, Any] | None) -> bytes:
        self._ended = True
        last = self._chunk({}, reason)
        if self._counts_usage and usage is not None:
            last += _data({**self._head, "choices": [], "usage": usage_of(usage)})
        return last + _DONE

    def _broken(self, body: Mapping[str, Any]) -> bytes:
        self._ended = True
        return _data(body) + _DONE

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
    return "length" if result["stop_reason"] in _LENGTH else "stop"


def _joined(text: str, note: str) -> str:
    return f"{text}\n\n{note}" if text.strip() else f"{text}{note}"


def _data(value: Mapping[str, Any]) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(value)
