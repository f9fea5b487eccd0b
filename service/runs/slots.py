"""The runs this process drives: a handle to stop each, and slots for those that no request drives."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from service.errors import RunCancelled, RunTimeout
from service.llm.client import ModelCall

Reason = Literal["cancelled", "timeout", "lost", "drain"]


class LeaseLost(Exception):
    """Another worker has taken the run over: this one must write and tell nothing more."""


class HandedOver(Exception):
    """This worker stops: the run goes back to the queue for another."""


class Handle:
    """One run in this process. `stop` may be called from any thread; the run's thread sees it at once."""

    def __init__(self, run_id: str, seconds: float, attempt: int = 1) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.deadline = time.monotonic() + seconds
        self._silence: float | None = None  # of the model; None: as long as the service allows
        self._lock = threading.Lock()
        self._reason: Reason | None = None
        self._call: ModelCall | None = None

    @property
    def reason(self) -> Reason | None:
        return self._reason

    def limit(self, seconds: float, silence: float | None = None) -> None:
        """The agent's own limits, where they are shorter: of the run, and of the silence of the model."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self._silence = silence

    def stop(self, reason: Reason) -> None:
        """Stop the run: the first reason given stands. A model call under way is cut off."""
        with self._lock:
            self._reason = self._reason or reason
            call = self._call
        if call is not None:
            call.abort()

    def call(self) -> ModelCall:
        """A lifeline for the next model call."""
        call = ModelCall(self.deadline, self._silence)
        with self._lock:
            self._call = call
            stopped = self._reason is not None
        if stopped:
            call.abort()
        return call

    def check(self) -> None:
        """Raises why the run must stop, if it must."""
        if self._reason is None and time.monotonic() > self.deadline:
            self._reason = "timeout"
        if self._reason is not None:
            raise self.why()

    def why(self) -> Exception:
        """What a stopped run ends with."""
        reasons: dict[str, Exception] = {"timeout": RunTimeout(), "lost": LeaseLost(), "drain": HandedOver()}
        return reasons.get(self._reason or "", RunCancelled())


class Slots:
    """Handles of the runs driven in this process, and slots for those driven in threads of their own.

    A run driven by its request needs no slot: the request has a place, see `service.runs.bulkhead`.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._handles: dict[str, Handle] = {}
        self._taken = 0

    def take(self) -> bool:
        """Take a slot. False: every one is taken."""
        with self._lock:
            if self._taken >= self.slots:
                return False
            self._taken += 1
            return True

    def give(self) -> None:
        """Give a slot back."""
        with self._lock:
            self._taken -= 1

    @property
    def taken(self) -> int:
        return self._taken

    @contextmanager
    def driving(self, handle: Handle) -> Iterator[Handle]:
        """The run can be found, and stopped, while it is driven."""
        with self._lock:
            self._handles[handle.run_id] = handle
        try:
            yield handle
        finally:
            with self._lock:
                if self._handles.get(handle.run_id) is handle:
                    del self._handles[handle.run_id]

    def get(self, run_id: str) -> Handle | None:
        return self._handles.get(run_id)

    def all(self) -> list[Handle]:
        with self._lock:
            return list(self._handles.values())
