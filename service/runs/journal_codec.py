"""Serialisation of a step's outcome in its row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from service.llm.client import ModelReply
from service.tools import ToolResult
from service.types import Usage

_REPLY = tuple(field.name for field in fields(ModelReply))


def encode_reply(reply: ModelReply) -> dict[str, Any]:
    return {
        "model": reply.model,
        "content": reply.content,
        "stop_reason": reply.stop_reason,
        "usage": list(reply.usage),
        "usage_source": reply.usage_source,
        "unreadable": sorted(reply.unreadable),
        **({} if reply.stop_sequence is None else {"stop_sequence": reply.stop_sequence}),
        "request_id": reply.request_id,
        "attempts": reply.attempts,
        **({"provider": reply.provider} if reply.provider else {}),
        "ms": round(reply.ms, 1),
    }


def decode_reply(stored: Mapping[str, Any]) -> ModelReply:
    """Decode a reply, ignoring unknown fields: a rollback may leave this release runs of a later one."""
    known = {name: stored[name] for name in _REPLY if name in stored}
    unreadable = frozenset(stored.get("unreadable", ()))
    return ModelReply(**{**known, "usage": Usage(*stored["usage"]), "unreadable": unreadable})


def encode_result(result: ToolResult) -> dict[str, Any]:
    stored: dict[str, Any] = {
        "ok": result.ok,
        "content": result.content,
        "preview": result.preview,
        "ms": result.ms,
        "sources": list(result.sources),
    }
    return stored | {"untrusted": True} if result.untrusted else stored  # else as releases before read it


def decode_result(stored: Mapping[str, Any]) -> ToolResult:
    return ToolResult(**{**stored, "sources": tuple(stored["sources"])})
