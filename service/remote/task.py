"""Task for a remote agent, the events on its way and its answer, in the words of no protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from service.errors import RemoteFailed

MAX_OUTPUT = 1024 * 1024  # characters of an answer
MAX_QUESTIONS = 20  # approvals that an answer asks for
MAX_TOOLS, MAX_SOURCES = 1_000, 200  # listed of an answer
MAX_NAME, MAX_TEXT = 128, 2_000  # characters of a name, of a title or a quote
_STATUSES = ("succeeded", "failed", "waiting_approval")


class AnswerBroken(Exception):
    """Raised when the connection ends before the answer does, as when the agent's process is killed."""


@dataclass(frozen=True, slots=True)
class RemoteTask:
    """Question for a remote agent. `body` are the fields of the POST protocol; `key` is the same at every attempt.

    `patience`: seconds to go on asking while no answer begins.
    """

    url: str
    key: str
    request_id: str
    body: Mapping[str, Any]
    patience: float = 0


class RemoteEvent(NamedTuple):
    """Event on the way to an answer: `text` `{"text"}`, `tool_called` or `tool_finished`, as in our own stream.

    `task` `{"id"}`: the name under which the agent can be told of a cancellation.
    """

    kind: Literal["text", "tool_called", "tool_finished", "task"]
    data: Mapping[str, Any]


class Question(NamedTuple):
    """Tool call of the remote agent that a person has to allow."""

    call_id: str
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RemoteAnswer:
    """Answer, or the questions before one. `state`: given back with the decisions, and not read here."""

    status: Literal["succeeded", "failed", "waiting_approval"]
    output: str = ""
    stop_reason: str = "end_turn"
    sources: Sequence[dict[str, str]] = ()
    tools: Sequence[dict[str, Any]] = ()
    error_code: str = ""
    questions: Sequence[Question] = ()
    state: Any = None


def answer_of(told: Any) -> RemoteAnswer:
    """Read an answer of the POST protocol; members that are not known are ignored. Raises `RemoteFailed`."""
    if not isinstance(told, dict) or told.get("status") not in _STATUSES:
        raise RemoteFailed("The remote agent sent an answer that cannot be read.")
    output = told.get("output") or ""
    if not isinstance(output, str) or len(output) > MAX_OUTPUT:
        raise RemoteFailed("The remote agent sent an output that is no text, or too long.")
    error = told.get("error")
    code = error.get("code") if isinstance(error, dict) else ""
    stop = told.get("stop_reason")
    return RemoteAnswer(
        status=told["status"],
        output=output,
        stop_reason=stop if isinstance(stop, str) and len(stop) <= 32 else "end_turn",
        sources=_sources(told.get("sources")),
        tools=_tools(told.get("tools")),
        error_code=code if isinstance(code, str) else "",
        questions=_questions(told.get("approvals")) if told["status"] == "waiting_approval" else (),
        state=told.get("state"),
    )


def _questions(told: Any) -> list[Question]:
    """Read the calls to be allowed: all of them, or none can be decided about. Raises `RemoteFailed`."""
    found = []
    for one in told if isinstance(told, list) else ():
        call = (
            (one.get("call_id"), one.get("name"), one.get("arguments", {})) if isinstance(one, dict) else ()
        )
        match call:
            case str(call_id), str(name), dict(arguments) if is_name(call_id) and is_name(name):
                found.append(Question(call_id, name, arguments))
            case _:
                raise RemoteFailed("The remote agent asks for an approval that cannot be read.")
    if not 0 < len(found) <= MAX_QUESTIONS or len({one.call_id for one in found}) < len(found):
        raise RemoteFailed(f"The remote agent waits for approvals without asking for 1 to {MAX_QUESTIONS}.")
    return found


def is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()


def _tools(told: Any) -> list[dict[str, Any]]:
    listed = told if isinstance(told, list) else []
    good = (one for one in listed[:MAX_TOOLS] if isinstance(one, dict) and is_name(one.get("name")))
    return [
        {"name": one["name"], "ok": one.get("ok") is not False, "ms": ms_of(one.get("ms"))} for one in good
    ]


def ms_of(value: Any) -> int:
    """Return a duration in ms; 0 for what is none."""
    return int(value) if type(value) in (int, float) and 0 <= value < 10**9 else 0


def _sources(told: Any) -> list[dict[str, str]]:
    listed = told if isinstance(told, list) else []
    return [
        {name: str(one.get(name) or "")[:MAX_TEXT] for name in ("title", "uri", "quote")}
        for one in listed[:MAX_SOURCES]
        if isinstance(one, dict)
    ]
