"""The runs this process drives: how many it may take at once, and a handle to stop each."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from service.errors import Overloaded, RunCancelled, RunTimeout
from service.llm.client import ModelCall

Reason = Literal["cancelled", "timeout", "lost", "drain"]


class LeaseLost(Exception):
    """Another worker has taken the run over: this one must write and tell nothing more."""


class HandedOver(Exception):
    """This worker stops: the run goes back to the queue for another."""


class Handle:
    """One run in this process. `stop` may be called from any thread; the run's thread sees it at once."""

    def __init__(self, run_id: str, seconds: float) -> None:
        self.run_id = run_id
        self.deadline = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._reason: Reason | None = None
        self._call: ModelCall | None = None

    @property
    def reason(self) -> Reason | None:
        return self._reason

    def limit(self, seconds: float) -> None:
        """The agent's own limit, where it is shorter."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)

    def stop(self, reason: Reason) -> None:
        """Stop the run: the first reason given stands. A model call under way is cut off."""
        with self._lock:
            self._reason = self._reason or reason
            call = self._call
        if call is not None:
            call.abort()

    def call(self) -> ModelCall:
        """A lifeline for the next model call."""
        call = ModelCall(self.deadline)
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


class ActiveRuns:
    """Handles by run id, and the slots that bound them: threads beyond them stay free for everything else."""

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._handles: dict[str, Handle] = {}
        self._taken = 0
        self._waiting = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """A place for one run. Raises `Overloaded` at once when every one is taken."""
        if not self.take():
            raise self.full()
        try:
            yield
        finally:
            self.give()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait for a run that another request drives: no slot is held, but a thread. See `check_room`."""
        with self._lock:
            self._waiting += 1
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def check_room(self) -> None:
        """Raises `Overloaded` when runs and those who wait have taken all the threads they may."""
        if self._taken + self._waiting >= self.slots:
            raise self.full()

    def take(self, *, request: bool = True) -> bool:
        """One slot; `request`: for a run whose request holds a thread too, as those do who wait."""
        with self._lock:
            if self._taken + (self._waiting if request else 0) >= self.slots:
                return False
            self._taken += 1
            return True

    def give(self) -> None:
        with self._lock:
            self._taken -= 1

    @property
    def taken(self) -> int:
        return self._taken

    @staticmethod
    def full() -> Overloaded:
        return Overloaded("Every run slot of this worker is taken; try again shortly.", retry_after=1)

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
