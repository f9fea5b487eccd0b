"""Stream of the Responses API: a run's events as `response.…` events with numbers.

The numbers follow from the run's events alone, so that each stream of a response has the same ones, on any worker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from service.types import Event, Run, RunEvent, RunStatus
from service.web.one_way import OneWayLens
from service.web.openai.errors import broken
from service.web.openai.responses_answer import (
    calls_of,
    ended,
    error_of,
    head,
    message,
    text_part,
    unfinished,
)

_DONE = b"data: [DONE]\n\n"
_ALL = -1  # number before the first event


class ResponsesLens(OneWayLens):
    """Encodes a run's events, of which the client has those up to number `after`.

    Text before a tool call of the agent is a message of its own. With `resumable`, a stream that ends before its
    response is left open: its client streams again from the last number. Else the end says that the run waits.
    """

    def __init__(
        self, run: Run, fields: Mapping[str, Any], *, after: int = _ALL, resumable: bool = False
    ) -> None:
        super().__init__(run)
        self._fields = fields
        self._after = after
        self._resumable = resumable
        self._number = 0
        self._begun: list[str] = []  # statuses told so far
        self._output: list[dict[str, Any]] = []
        self._message: dict[str, Any] | None = None  # under way

    def opening(self) -> bytes:
        """Encode what is told before the run's first event."""
        if self._begun:
            return b""
        if not self._fields["background"]:
            return self._tell_status("created", "in_progress") + self._tell_status(
                "in_progress", "in_progress"
            )
        return self._tell_status("created", "queued") + self._tell_status("queued", "queued")

    def encode(self, events: Sequence[RunEvent]) -> bytes:
        told = self.opening()
        if "in_progress" not in self._begun and any(event.name is not Event.RECONNECT for event in events):
            told += self._tell_status("in_progress", "in_progress")
        return told + super().encode(events)

    def begin(self) -> bytes:
        return b""  # told by `encode`, as the run's first event may be lost

    def text(self, piece: str) -> bytes:
        told = b""
        if self._message is None:
            self._message = message(self.run, len(self._output), None, "in_progress")
            told = self._of_item("output_item.added", item=self._message)
            told += self._of_part("content_part.added", part=text_part(""))
        return told + self._of_part("output_text.delta", delta=piece, logprobs=[])

    def part(self) -> bytes:
        return self._close("commentary", "completed")

    def end(self, result: Mapping[str, Any] | None) -> bytes:
        told = self._close("final_answer", "completed")
        if result is None:
            whole = unfinished(self.run, self._fields, "incomplete", str(self.waits), self._output)
            return told + self._end("incomplete", whole)
        for call in calls_of(self.run, result):
            told += self._call(call)
        whole = ended(self.run, result, self._fields, self._output)
        return told + self._end(whole["status"], whole)

    def failed(self, problem: Mapping[str, Any]) -> bytes:
        told = self._close("final_answer", "incomplete")
        cancelled = problem["code"] == "run_cancelled"
        whole = head(self.run, self._fields, "cancelled" if cancelled else "failed")
        whole |= {"output": self._output, "error": None if cancelled else error_of(problem)}
        return told + self._end("incomplete" if cancelled else "failed", whole)

    def broken(self, message: str, code: str) -> bytes:
        error = broken(message, code, self.run.request_id)["error"]
        flat = {name: error[name] for name in ("code", "message", "param")}
        return self._event("error", error=error, **flat) + _DONE

    def _left(self, told: RunStatus | None) -> bytes:
        return b"" if self._resumable else super()._left(told)

    def _close(self, phase: str, status: str) -> bytes:
        """Encode the end of the message under way, if any."""
        if self._message is None:
            return b""
        part = text_part(self.said)
        told = self._of_part("output_text.done", text=self.said, logprobs=[])
        told += self._of_part("content_part.done", part=part)
        whole = {**self._message, "status": status, "content": [part], "phase": phase}
        told += self._of_item("output_item.done", item=whole)
        self._output.append(whole)
        self._message = None
        return told

    def _call(self, call: dict[str, Any]) -> bytes:
        """Encode a call of a function of the client."""
        told = self._of_item("output_item.added", item={**call, "arguments": "", "status": "in_progress"})
        where = {"item_id": call["id"], "output_index": len(self._output)}
        arguments = call["arguments"]
        told += self._event("response.function_call_arguments.delta", **where, delta=arguments)
        told += self._event(
            "response.function_call_arguments.done", **where, name=call["name"], arguments=arguments
        )
        told += self._of_item("output_item.done", item=call)
        self._output.append(call)
        return told

    def _tell_status(self, kind: str, status: str) -> bytes:
        self._begun.append(kind)
        return self._event(f"response.{kind}", response=head(self.run, self._fields, status))

    def _end(self, kind: str, response: Mapping[str, Any]) -> bytes:
        return self._event(f"response.{kind}", response=response) + _DONE

    def _of_item(self, kind: str, **data: Any) -> bytes:
        return self._event(f"response.{kind}", output_index=len(self._output), **data)

    def _of_part(self, kind: str, **data: Any) -> bytes:
        assert self._message is not None
        item = {"item_id": self._message["id"], "output_index": len(self._output), "content_index": 0}
        return self._event(f"response.{kind}", **item, **data)

    def _event(self, kind: str, **data: Any) -> bytes:
        number, self._number = self._number, self._number + 1
        if number <= self._after:
            return b""
        data = {"type": kind, "sequence_number": number, **data}
        return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps(data))
