"""A2A 1.0 over JSON-RPC: `SendStreamingMessage`, whose events are those of one task.

A task's artifacts are the answer; the state `input-required` is a question that a person answers with yes or no. The
run's token and base URL are in the message's metadata, under `slipway`. A server that does not stream is sent
`SendMessage`, and asked for its task until that has ended; so is one whose stream breaks off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import orjson

from service.errors import RemoteFailed, RemoteUnavailable
from service.infra.http import ConnectionBroken, NoAnswer, StreamedAnswer
from service.remote.bodies import ended_early, media_type, parsed, whole
from service.remote.events import ServerSentEvents
from service.remote.post import ACCEPT
from service.remote.task import (
    MAX_NAME,
    MAX_OUTPUT,
    AnswerBroken,
    Question,
    RemoteAnswer,
    RemoteEvent,
    RemoteTask,
    is_name,
)

VERSION = "1.0"
MAX_ARTIFACTS = 1_000
METADATA = "slipway"  # key of the message's metadata
QUESTION = "remote"  # name of the call that an `input-required` asks for
_OF_THE_RUN = (
    *("run_token", "base_url", "run_id", "attempt", "deadline", "context", "output_schema"),
    "messages",  # earlier turns of the session too, for a server that does not keep its contexts
)
STREAMED, WHOLE = "SendStreamingMessage", "SendMessage"
NOT_OFFERED = (-32004, -32601)  # JSON-RPC errors: unsupported operation, method not found
POLL_SECONDS = 1.0  # between two looks at a task that is not streamed
Post = Callable[[bytes], AbstractContextManager[StreamedAnswer]]
Wait = Callable[[float], bool]  # waits so many seconds; True: the exchange has been closed
_FAILED = frozenset(
    {"TASK_STATE_FAILED", "TASK_STATE_CANCELED", "TASK_STATE_REJECTED", "TASK_STATE_AUTH_REQUIRED"}
)


def headers_of(task: RemoteTask) -> dict[str, str]:
    return {
        "Content-Type": "application/json",
        "Accept": ACCEPT,
        "A2A-Version": VERSION,
        "X-Request-ID": task.request_id,
    }


def body_of(task: RemoteTask, method: str = STREAMED) -> bytes:
    """Build the request: the user's turn, or the decision about the task's question."""
    body, resume = task.body, task.body.get("resume")
    message: dict[str, Any] = {
        "messageId": task.key,
        "role": "ROLE_USER",
        "parts": [{"text": body["input"]}],
        "metadata": {METADATA: {name: body.get(name) for name in _OF_THE_RUN}},
    }
    if resume is not None:
        decided = resume["decisions"][0]
        message |= {"taskId": resume["state"]["task_id"], "contextId": resume["state"]["context_id"]}
        message["parts"] = [{"text": decided["comment"] or decided["decision"]}, {"data": decided}]
    elif body.get("session_id"):
        message["contextId"] = body["session_id"]
    params: dict[str, Any] = {"message": message}
    if method == WHOLE:
        params["configuration"] = {"returnImmediately": True}
    return _request(method, task.key, params)


def cancel_of(task_id: str) -> bytes:
    """Build the request that cancels a task."""
    return _request("CancelTask", task_id, {"id": task_id})


def _request(method: str, request_id: str, params: Mapping[str, Any]) -> bytes:
    return orjson.dumps({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params})


def ask(task: RemoteTask, post: Post, wait: Wait) -> Iterator[RemoteEvent | RemoteAnswer]:
    """Ask, and yield the text of artifacts as it arrives, and last the answer.

    Raises `RemoteFailed`, `AnswerBroken` and the errors of `post`.
    """
    told = _Task()
    try:
        with post(body_of(task)) as answer:
            yield from _read(answer, told)
    except _NotOffered:
        yield from _asked_whole(task, told, post, wait)
    except (ConnectionBroken, AnswerBroken):
        if not told.id:
            raise
        try:
            yield from _polled(told, post, wait)
        except (
            NoAnswer,
            RemoteFailed,
            RemoteUnavailable,
            _NotOffered,
        ):  # its process has gone, and its task with it
            raise AnswerBroken("The remote agent's answer broke off.") from None


def _asked_whole(
    task: RemoteTask, told: _Task, post: Post, wait: Wait
) -> Iterator[RemoteEvent | RemoteAnswer]:
    """Ask a server that does not stream. Raises `RemoteFailed` and the errors of `post`."""
    try:
        with post(body_of(task, WHOLE)) as answer:
            yield from told.take(_result(whole(answer.parts)))
        yield from _polled(told, post, wait)
    except _NotOffered:
        raise RemoteFailed("The remote agent refused the task.") from None


def _polled(told: _Task, post: Post, wait: Wait) -> Iterator[RemoteEvent | RemoteAnswer]:
    """Look at a task until it has ended. Raises `RemoteFailed` and the errors of `post`."""
    while told.answer is None:
        if not told.id:
            raise RemoteFailed("The remote agent answered with neither a message nor a task.")
        if wait(POLL_SECONDS):
            return
        with post(_request("GetTask", told.id, {"id": told.id})) as answer:
            yield from told.take({"task": _result(whole(answer.parts))})
    yield told.answer


def read(answer: StreamedAnswer) -> Iterator[RemoteEvent | RemoteAnswer]:
    """Yield the text of artifacts as it arrives, and last the answer. Raises `RemoteFailed` and `AnswerBroken`."""
    yield from _read(answer, _Task())


def _read(answer: StreamedAnswer, task: _Task) -> Iterator[RemoteEvent | RemoteAnswer]:
    kind = media_type(answer)
    if kind not in ("text/event-stream", "application/json"):
        raise RemoteFailed("The remote agent answers with neither JSON nor events.")
    for result in _results(answer.parts, streamed=kind == "text/event-stream"):
        yield from task.take(result)
        if task.answer is not None:
            yield task.answer
            return
    raise ended_early(answer, "The remote agent's stream ended before its task did.")


class _Task:
    """Task as its events tell it."""

    def __init__(self) -> None:
        self.answer: RemoteAnswer | None = None
        self.id = ""  # once it is told
        self._output = self._context = ""
        self._artifacts: dict[str, str] = {}  # text by id

    def take(self, result: Mapping[str, Any]) -> Iterator[RemoteEvent]:
        """Take one result; yield the text that it adds. Sets `answer` at the end."""
        if isinstance(message := result.get("message"), dict):
            yield from self._add(_text(message.get("parts")))
            self.answer = RemoteAnswer("succeeded", self._output)
        elif isinstance(task := result.get("task"), dict):
            yield from self._known(task.get("id"), task.get("contextId"))
            for artifact in task.get("artifacts") or ():
                yield from self._artifact(artifact, append=False)
            yield from self._state(task.get("status"))
        elif isinstance(update := result.get("artifactUpdate"), dict):
            yield from self._known(update.get("taskId"), update.get("contextId"))
            yield from self._artifact(update.get("artifact"), append=update.get("append") is True)
        elif isinstance(update := result.get("statusUpdate"), dict):
            yield from self._known(update.get("taskId"), update.get("contextId"))
            yield from self._state(update.get("status"))

    def _known(self, task_id: Any, context_id: Any) -> Iterator[RemoteEvent]:
        """Note the task's ids, and tell them once: a task that goes on may begin with an update."""
        if not self.id and is_name(task_id) and is_name(context_id):
            self.id, self._context = task_id, context_id
            yield RemoteEvent("task", {"id": task_id})

    def _artifact(self, artifact: Any, *, append: bool) -> Iterator[RemoteEvent]:
        """Add what is new of an artifact; one that is sent whole again may only have grown. Raises `RemoteFailed`."""
        if not isinstance(artifact, dict):
            return
        name, text = str(artifact.get("artifactId"))[:MAX_NAME], _text(artifact.get("parts"))
        told = self._artifacts.get(name, "")
        if not append and not text.startswith(told):
            raise RemoteFailed("The remote agent replaced text that it had sent.")
        new = text if append else text[len(told) :]
        yield from self._add(new)
        self._artifacts[name] = told + new
        if len(self._artifacts) > MAX_ARTIFACTS:
            raise RemoteFailed("The remote agent sent too many artifacts.")

    def _add(self, text: str) -> Iterator[RemoteEvent]:
        self._output += text
        if len(self._output) > MAX_OUTPUT:
            raise RemoteFailed("The remote agent sent an output that is too long.")
        if text:
            yield RemoteEvent("text", {"text": text})

    def _state(self, status: Any) -> Iterator[RemoteEvent]:
        """Read the task's state: an end, a question, or work in progress."""
        state = status.get("state") if isinstance(status, dict) else None
        told = status.get("message") if isinstance(status, dict) else None
        words = _text(told.get("parts")) if isinstance(told, dict) else ""
        if state in _FAILED:
            self.answer = RemoteAnswer("failed", self._output)
        elif state == "TASK_STATE_COMPLETED":
            if not self._output:
                yield from self._add(words)
            self.answer = RemoteAnswer("succeeded", self._output)
        elif state == "TASK_STATE_INPUT_REQUIRED":
            question = Question(f"input_{len(self._output)}", QUESTION, {"question": words[:2_000]})
            kept = {"task_id": self.id, "context_id": self._context}
            self.answer = RemoteAnswer("waiting_approval", self._output, questions=[question], state=kept)


def _results(parts: Iterator[bytes], *, streamed: bool) -> Iterator[Mapping[str, Any]]:
    """Yield the results of JSON-RPC answers. Raises `RemoteFailed` for its errors."""
    for data in (data for _, data in ServerSentEvents().read(parts)) if streamed else (whole(parts),):
        yield _result(data)


class _NotOffered(Exception):
    """Raised for a method that the server does not offer."""


def _result(data: bytes) -> Mapping[str, Any]:
    """Return the result of a JSON-RPC answer. Raises `RemoteFailed` for its errors."""
    told = parsed(data)
    result = told.get("result") if isinstance(told, dict) else None
    if isinstance(result, dict):
        return result
    error = told.get("error") if isinstance(told, dict) else None
    code = error.get("code") if isinstance(error, dict) else None
    kind = _NotOffered if code in NOT_OFFERED else RemoteFailed
    raise kind("The remote agent refused the task.")


def _text(parts: Any) -> str:
    listed = parts if isinstance(parts, list) else []
    return "".join(
        part["text"] for part in listed if isinstance(part, dict) and isinstance(part.get("text"), str)
    )
