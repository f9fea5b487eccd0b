"""Spans of steps, over the model and tool calls that they make; with their content, where it is to be captured.

Content is what guardrails leave of it, on its way in and on its way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import orjson

from service.agents.pattern import Events
from service.llm.client import ModelReply, ModelRequest
from service.observe import genai, tracing
from service.observe.logs import scrub
from service.observe.tracing import Kind, Span, Within
from service.runs.attempt import Attempt
from service.tools import ToolResult
from service.types import Message, message_text

MAX_MESSAGES = 20  # of a prompt, the newest
T = TypeVar("T")


def in_step(started: Mapping[str, Any], events: Events[T]) -> Events[T]:
    """Yield the events of a step that is made now, in a span. `started`: data of its `step.started`."""
    with _span_of(started):
        return (yield from events)


def in_model_step(
    started: Mapping[str, Any], attempt: Attempt, request: ModelRequest, events: Events[ModelReply]
) -> Events[ModelReply]:
    """Yield the events of a model step, as `in_step`. `request` is as its model reads it."""
    with _span_of(started) as span:
        reply = yield from events
        if span is not None and span.takes_content:
            asked = [_said(one) for one in request.messages[-MAX_MESSAGES:]]
            parts = [_part(block) for block in reply.content if block.get("type") in ("text", "tool_use")]
            answered = {"role": "assistant", "parts": parts, "finish_reason": reply.stop_reason}
            _capture(span, attempt, asked, [answered])
        return reply


def in_tool_step(
    started: Mapping[str, Any], attempt: Attempt, reply: ModelReply, events: Events[list[ToolResult]]
) -> Events[list[ToolResult]]:
    """Yield the events of a step of tool calls, as `in_step`."""
    with _span_of(started) as span:
        results = yield from events
        if span is not None and span.takes_content:
            calls = [_part(use) for use in reply.tool_uses]
            given = [
                {"type": "tool_call_response", "id": use["id"], "response": result.content}
                for use, result in zip(reply.tool_uses, results, strict=True)
            ]
            _capture(
                span, attempt, [{"role": "assistant", "parts": calls}], [{"role": "tool", "parts": given}]
            )
        return results


def _span_of(started: Mapping[str, Any]) -> Within:
    about = {genai.STEP: started["step"], genai.STEP_KIND: started["kind"]}
    kind: Kind = "client" if started["kind"] == "remote" else "internal"
    return tracing.span(f"step {started['name']}", kind, about)


def _said(message: Message) -> dict[str, Any]:
    return {"role": message["role"], "parts": [{"type": "text", "content": message_text(message)}]}


def _part(block: Mapping[str, Any]) -> dict[str, Any]:
    if block["type"] == "text":
        return {"type": "text", "content": block["text"]}
    return {"type": "tool_call", "id": block["id"], "name": block["name"], "arguments": block["input"]}


def _capture(span: Span, attempt: Attempt, asked: Sequence[Any], answered: Sequence[Any]) -> None:
    for name, content in ((genai.INPUT_MESSAGES, asked), (genai.OUTPUT_MESSAGES, answered)):
        span.set({name: scrub(orjson.dumps(attempt.rails.captured(content)).decode())})
