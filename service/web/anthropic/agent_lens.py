"""Answers of the Messages API by an agent: one message, or the events of a stream, from a run's result and events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from service.runs.client_tools import wire_id
from service.types import Run
from service.web.anthropic.errors import broken, error_of_run
from service.web.one_way import OneWayLens, waiting_text

_NONE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
}


def message(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """Build the answer from a run's result; one that waits says so after its text."""
    content = [{"type": "text", "text": result["output"]}] if result["output"] else []
    if run.status.waits:
        content.append({"type": "text", "text": waiting_text(run.status, result.get("approvals", ()))})
    content += [_call(run, call) for call in result.get("client_calls", ())]
    return {**_head(run), "content": content, **_ended(result), "usage": usage_of(result["usage"])}


def usage_of(usage: Mapping[str, Any]) -> dict[str, int]:
    return {name: usage[name] for name in _NONE}


class MessagesLens(OneWayLens):
    """Encodes a run's events as those of the Messages API. Text before a tool call is a block of its own."""

    heartbeat = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, run: Run) -> None:
        super().__init__(run)
        self._index = 0  # of the block that is open, or comes next

    def begin(self) -> bytes:
        started = {
            **_head(self.run),
            "content": [],
            "stop_reason": None,
            "stop_sequence": None,
            "usage": _NONE,
        }
        return _event("message_start", message=started) + self.heartbeat

    def text(self, piece: str) -> bytes:
        delta = _event("content_block_delta", index=self._index, delta={"type": "text_delta", "text": piece})
        if self.said:
            return delta
        return (
            _event("content_block_start", index=self._index, content_block={"type": "text", "text": ""})
            + delta
        )

    def part(self) -> bytes:
        if not self.said:
            return b""
        self._index += 1
        return _event("content_block_stop", index=self._index - 1)

    def end(self, result: Mapping[str, Any] | None) -> bytes:
        last = self.part()
        if result is None:
            return last + self._finish({"stop_reason": "end_turn", "stop_sequence": None}, _NONE)
        for call in result.get("client_calls", ()):
            last += self._called(_call(self.run, call))
        return last + self._finish(_ended(result), usage_of(result["usage"]))

    def failed(self, problem: Mapping[str, Any]) -> bytes:
        return _error(error_of_run(problem))

    def broken(self, message: str, code: str) -> bytes:
        return _error(broken(message, code, self.run.request_id))

    def _called(self, block: Mapping[str, Any]) -> bytes:
        index, self._index = self._index, self._index + 1
        delta = {"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}
        return (
            _event("content_block_start", index=index, content_block={**block, "input": {}})
            + _event("content_block_delta", index=index, delta=delta)
            + _event("content_block_stop", index=index)
        )

    def _finish(self, delta: Mapping[str, Any], usage: Mapping[str, int]) -> bytes:
        return _event("message_delta", delta=delta, usage=usage) + _event("message_stop")


def _head(run: Run) -> dict[str, Any]:
    return {
        "id": f"msg_{run.id.removeprefix('run_')}",
        "type": "message",
        "role": "assistant",
        "model": run.agent,
    }


def _call(run: Run, call: Mapping[str, Any]) -> dict[str, Any]:
    id_ = wire_id("toolu", run.id, call["id"])
    return {"type": "tool_use", "id": id_, "name": call["name"], "input": call["arguments"]}


def _ended(result: Mapping[str, Any]) -> dict[str, Any]:
    reason = result["stop_reason"] or "end_turn"  # none of a run that waits
    return {"stop_reason": reason, "stop_sequence": result.get("stop_sequence")}


def _event(name: str, **fields: Any) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name.encode(), orjson.dumps({"type": name, **fields}))


def _error(body: Mapping[str, Any]) -> bytes:
    return b"event: error\ndata: %b\n\n" % orjson.dumps(body)
