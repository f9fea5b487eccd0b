"""Answers of the Messages API by an agent: one message, or the events of a stream, from a run's result and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.runs.client_tools import wire_id
from service.types import Event, Run, RunEvent
from service.web.anthropic.errors import broken, error_of_run

_NONE = {
    "input_tokens": 0,
    "output_tokens": 0,
    "cache_read_input_tokens": 0,
    "cache_creation_input_tokens": 0,
}


def message(run: Run, result: Mapping[str, Any]) -> dict[str, Any]:
    """Build the answer from a run's result; one that waits for a person says so after its text."""
    content = [{"type": "text", "text": result["output"]}] if result["output"] else []
    if result.get("approvals"):
        content.append({"type": "text", "text": waiting_text(result["approvals"])})
    content += [_call(run, call) for call in result.get("client_calls", ())]
    return {**_head(run), "content": content, **_ended(result), "usage": usage_of(result["usage"])}


def usage_of(usage: Mapping[str, Any]) -> dict[str, int]:
    return {name: usage[name] for name in _NONE}


def waiting_text(approvals: Sequence[str]) -> str:
    return f"[Waiting for a person to approve: {', '.join(approvals)}]"


class MessagesLens:
    """Encodes a run's events as those of the Messages API. Text before a tool call is a block of its own.

    The dialect cannot take text back, so text that has become void is never followed by another.
    """

    mimetype = "text/event-stream"
    heartbeat = b'event: ping\ndata: {"type":"ping"}\n\n'

    def __init__(self, run: Run) -> None:
        self._run = run
        self._index = 0  # of the block that is open, or comes next
        self._open = False
        self._said = ""  # in the block that is open
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
            started = {
                **_head(self._run),
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": _NONE,
            }
            return _event("message_start", message=started) + self.heartbeat
        if name is Event.TOOL_CALLED and "branch" not in data and not self._void:
            return self._close()
        if name is Event.GAP or (name is Event.RUN_RESUMED and self._said):
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
        begin = b""
        if not self._open:
            self._open, empty = True, {"type": "text", "text": ""}
            begin = _event("content_block_start", index=self._index, content_block=empty)
        self._said += text
        return begin + _event(
            "content_block_delta", index=self._index, delta={"type": "text_delta", "text": text}
        )

    def _close(self) -> bytes:
        """End the block that is open."""
        if not self._open:
            return b""
        index, self._index, self._open, self._said = self._index, self._index + 1, False, ""
        return _event("content_block_stop", index=index)

    def _end(self, name: Event, result: Mapping[str, Any]) -> bytes:
        if name is not Event.RUN_COMPLETED:
            return self._broken(error_of_run(result["error"]))
        output, rest = result["output"], b""
        if self._void:
            if not output.startswith(self._said):
                told = "The answer began anew after a part of it was sent."
                return self._broken(broken(told, "answer_replaced", self._run.request_id))
            self._void, missing = False, output[len(self._said) :]
            rest = self._text(missing) if missing else b""
        rest += self._close()
        for call in result.get("client_calls", ()):
            rest += self._called(_call(self._run, call))
        return rest + self._finish(_ended(result), usage_of(result["usage"]))

    def _called(self, block: Mapping[str, Any]) -> bytes:
        index, self._index = self._index, self._index + 1
        delta = {"type": "input_json_delta", "partial_json": orjson.dumps(block["input"]).decode()}
        return (
            _event("content_block_start", index=index, content_block={**block, "input": {}})
            + _event("content_block_delta", index=index, delta=delta)
            + _event("content_block_stop", index=index)
        )

    def _left(self) -> bytes:
        """End the stream of a run that goes on elsewhere, or waits."""
        if self._approvals:
            note = self._close() + self._text(waiting_text(self._approvals)) + self._close()
            return note + self._finish({"stop_reason": "end_turn", "stop_sequence": None}, _NONE)
        told = "The connection ends here; the run goes on."
        return self._broken(broken(told, "stream_ended", self._run.request_id))

    def _finish(self, delta: Mapping[str, Any], usage: Mapping[str, int]) -> bytes:
        self._ended = True
        return _event("message_delta", delta=delta, usage=usage) + _event("message_stop")

    def _broken(self, body: Mapping[str, Any]) -> bytes:
        self._ended = True
        return b"event: error\ndata: %b\n\n" % orjson.dumps(body)


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
