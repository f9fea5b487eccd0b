"""Lens for dialects that cannot take text back: what was sent stands, so two attempts' texts are never mixed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from service.types import Event, Run, RunEvent, RunStatus


class OneWayLens(ABC):
    """Encodes a run's events; a dialect says how each of its parts is written.

    A resumed answer that is the same goes on. One that differs ends the stream with an error, unless nothing of it was
    sent. A gap is filled from the result.
    """

    mimetype = "text/event-stream"
    heartbeat = b": keep-alive\n\n"

    def __init__(self, run: Run) -> None:
        self.run = run
        self.said = ""  # of this part of the text: since the last tool call
        self._void = (
            False  # text that was sent does not count any more, or some was lost: the end must repair it
        )
        self._approvals: list[str] = []
        self._status: RunStatus | None = None  # in which the run waits, as far as it was told
        self._ended = False
        self.waits: RunStatus | None = None  # status in which the run waits, once its stream ends for that

    @abstractmethod
    def begin(self) -> bytes:
        """Encode the beginning of the run."""

    @abstractmethod
    def text(self, piece: str) -> bytes:
        """Encode text; `said` is what came before it in this part."""

    @abstractmethod
    def part(self) -> bytes:
        """Encode the end of a part, before a tool call of the agent."""

    @abstractmethod
    def end(self, result: Mapping[str, Any] | None) -> bytes:
        """Encode the end of a run that has succeeded; None: of one that waits, after a note that says so."""

    @abstractmethod
    def failed(self, problem: Mapping[str, Any]) -> bytes:
        """Encode the problem of a failed run as the end of the stream."""

    @abstractmethod
    def broken(self, message: str, code: str) -> bytes:
        """Encode an error of the stream's own as its end."""

    def encode(self, events: Sequence[RunEvent]) -> bytes:
        """Encode events; empty for those that the dialect does not know, and for all after the end."""
        return b"".join(self._encoded(event) for event in events if not self._ended)

    def _encoded(self, event: RunEvent) -> bytes:
        name, data = event.name, event.data
        if name is Event.TEXT_DELTA:
            return b"" if self._void else self._tell(data["text"])
        if name is Event.RUN_STARTED:
            return self.begin()
        if name is Event.TOOL_CALLED and "branch" not in data and not self._void:
            ended, self.said = self.part(), ""
            return ended
        if name is Event.RUN_RESUMED:
            self._status = None
            self._void = self._void or bool(self.said)
        elif name is Event.GAP:
            self._void = True
        elif name is Event.APPROVAL_REQUIRED:
            self._approvals.append(data["approval_id"])
        elif name is Event.BUDGET_REQUIRED:
            self._status = RunStatus.WAITING_BUDGET
        elif name is Event.APPROVAL_DECIDED and data["approval_id"] in self._approvals:
            self._approvals.remove(data["approval_id"])
        elif name is Event.RECONNECT or name.is_last:
            self._ended = True
            return self._left(data.get("status")) if name is Event.RECONNECT else self._last(name, data)
        return b""

    def _tell(self, piece: str) -> bytes:
        encoded = self.text(piece)
        self.said += piece
        return encoded

    def _last(self, name: Event, result: Mapping[str, Any]) -> bytes:
        if name is not Event.RUN_COMPLETED:
            return self.failed(result["error"])
        missing = b""
        if self._void:
            if not result["output"].startswith(self.said):
                return self.broken("The answer began anew after a part of it was sent.", "answer_replaced")
            rest = result["output"][len(self.said) :]
            missing = self._tell(rest) if rest else b""
        return missing + self.end(result)

    def _left(self, told: RunStatus | None) -> bytes:
        """End the stream of a run that goes on elsewhere, or waits in the status that is told."""
        status = told or (RunStatus.WAITING_APPROVAL if self._approvals else self._status)
        if status is None:
            return self.broken("The connection ends here; the run goes on.", "stream_ended")
        self.waits = status
        ended, self.said = self.part(), ""
        return ended + self._tell(waiting_text(status, self._approvals)) + self.end(None)


def waiting_text(status: str, approvals: Sequence[str] = ()) -> str:
    """Return what clients are told of a run that waits, in a dialect that knows no such thing."""
    if status == RunStatus.WAITING_APPROVAL and not approvals:
        return "[Waiting for a person to approve]"
    if approvals:
        return f"[Waiting for a person to approve: {', '.join(approvals)}]"
    if status == RunStatus.WAITING_BUDGET:
        return "[Waiting for room under a spending cap]"
    return "[Paused: this agent is stopped]"
