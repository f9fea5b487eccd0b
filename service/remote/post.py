"""POST protocol: one request, answered by JSON or by a stream of server-sent events in the shape of our own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from service.errors import RemoteFailed
from service.infra.http import StreamedAnswer
from service.remote.bodies import ended_early, media_type, parsed, whole
from service.remote.events import ServerSentEvents
from service.remote.task import RemoteAnswer, RemoteEvent, RemoteTask, answer_of, is_name, ms_of

MAX_PREVIEW = 200  # characters
ACCEPT = "text/event-stream, application/json"
_TOLD = {"text.delta": "text", "tool.called": "tool_called", "tool.finished": "tool_finished"}
_LAST = ("run.completed", "run.failed", "run.cancelled", "run.waiting")


def headers_of(task: RemoteTask) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Accept": ACCEPT,
        "Idempotency-Key": task.key,
        "X-Request-ID": task.request_id,
    }


def body_of(task: RemoteTask) -> bytes:
    return orjson.dumps(dict(task.body))


def read(answer: StreamedAnswer) -> Iterator[RemoteEvent | RemoteAnswer]:
    """Yield the events of an answer, and last the answer itself. Raises `RemoteFailed` and `AnswerBroken`."""
    kind = media_type(answer)
    if kind == "application/json":
        yield answer_of(parsed(whole(answer.parts)))
    elif kind == "text/event-stream":
        yield from _streamed(answer)
    else:
        raise RemoteFailed("The remote agent answers with neither JSON nor events.")


def _streamed(answer: StreamedAnswer) -> Iterator[RemoteEvent | RemoteAnswer]:
    """Yield events up to the last one; what comes after it is not read. Raises `RemoteFailed` and `AnswerBroken`."""
    for name, data in ServerSentEvents().read(answer.parts):
        if name in _LAST:
            told = parsed(data)
            if isinstance(told, dict) and name == "run.waiting":
                told = {**told, "status": "waiting_approval"}
            yield answer_of(told)
            return
        if name in _TOLD and (event := _event(name, parsed(data))) is not None:
            yield event
    raise ended_early(answer, "The remote agent's stream ended before its last event.")


def _event(name: str, data: Any) -> RemoteEvent | None:
    """Read an event; None for one that does not have the shape of ours."""
    if not isinstance(data, dict):
        return None
    if name == "text.delta":
        text = data.get("text")
        return RemoteEvent("text", {"text": text}) if isinstance(text, str) else None
    if not is_name(data.get("call_id")):
        return None
    if name == "tool.called":
        arguments = data.get("arguments")
        if not is_name(data.get("name")) or not isinstance(arguments, dict):
            return None
        kept = {"call_id": data["call_id"], "name": data["name"], "arguments": arguments}
        return RemoteEvent("tool_called", kept)
    preview = data.get("preview")
    shown = preview[:MAX_PREVIEW] if isinstance(preview, str) else ""
    ended = {"ok": data.get("ok") is not False, "ms": ms_of(data.get("ms"))}
    return RemoteEvent("tool_finished", {"call_id": data["call_id"], **ended, "preview": shown})
