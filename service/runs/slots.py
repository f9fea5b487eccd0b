"""Slots for runs that execute in this process without a request, and a stop handle per executing run."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

from service.errors import RunCancelled, RunTimeout
from service.llm.client import CallProgress, ModelCall

Reason = Literal["cancelled", "refused", "timeout", "lost", "drain"]
TOOL_GRACE = (
    5.0  # seconds a cancelled run waits for a tool that changes something, as its outcome should be known
)
USER_REFUSED = "Its user, or their workspace, was disabled or deleted."


class LeaseLost(Exception):
    """Raised when another worker owns the run now: this one must write and publish nothing more."""


class HandedOver(Exception):
    """Raised when this worker stops: the run returns to the queue for another."""


class Handle:
    """Stop handle of a run in this process. `stop` may be called from any thread; the run's thread sees it at once."""

    def __init__(self, run_id: str, seconds: float, attempt: int = 1) -> None:
        self.run_id = run_id
        self.attempt = attempt
        self.deadline = time.monotonic() + seconds
        self._silence: float | None = None  # seconds of model silence allowed; None: the service's default
        self._lock = threading.Lock()
        self._reason: Reason | None = None
        self._stopped_at = math.inf
        self._calls: set[ModelCall] = set()  # under way: several where sub-agents work side by side

    @property
    def reason(self) -> Reason | None:
        return self._reason

    def limit(self, seconds: float, silence: float | None = None) -> None:
        """Apply the agent's own limits, in seconds: of the run, if shorter, and of the model's silence."""
        self.deadline = min(self.deadline, time.monotonic() + seconds)
        self._silence = silence

    def stop(self, reason: Reason) -> None:
        """Stop the run: the first reason wins. Model calls under way are aborted."""
        with self._lock:
            if self._reason is None:
                self._reason, self._stopped_at = reason, time.monotonic()
            calls = list(self._calls)
        for call in calls:
            call.abort()

    def call(
        self, on_text: Callable[[str], object] | None, before_retry: Callable[[CallProgress], object]
    ) -> ModelCall:
        """Create the next model call, which `stop` aborts until it is `over`."""
        call = ModelCall(self.deadline, self._silence, on_text=on_text, before_retry=before_retry)
        with self._lock:
            self._calls.add(call)
            stopped = self._reason is not None
        if stopped:
            call.abort()
        return call

    def over(self, call: ModelCall) -> None:
        """Forget a model call that has ended."""
        with self._lock:
            self._calls.discard(call)

    def gives_up_tools_at(self, grace: float) -> float:
        """Return the time (`time.monotonic()`) from which a cancelled run waits for no tool: `grace` seconds later."""
        return self._stopped_at + grace if self._reason in ("cancelled", "refused") else math.inf

    def check(self) -> None:
        """Raise the stop reason, if the run must stop."""
        if self._reason is None and time.monotonic() > self.deadline:
            self.stop("timeout")
        if self._reason is not None:
            raise self.why()

    def seconds_left(self) -> float:
        """Return the seconds until the deadline. Raises the stop reason, if the run must stop."""
        self.check()
        return self.deadline - time.monotonic()

    def why(self) -> Exception:
        """Return the exception that a stopped run ends with."""
        reasons: dict[str, Exception] = {
            "refused": RunCancelled(USER_REFUSED),
            "timeout": RunTimeout(),
            "lost": LeaseLost(),
            "drain": HandedOver(),
        }
        return reasons.get(self._reason or "", RunCancelled())


class Slots:
    """Handles of the runs that execute in this process, and slots for those in threads of their own.

    A run that executes in its request's thread needs no slot: the request has a place, see `service.runs.bulkhead`.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self._lock = threading.Lock()
        self._handles: dict[str, Handle] = {}
        self._claims: set[str] = set()
        self._taken = 0

    def take(self) -> bool:
        """Take a slot. False: all are taken."""
        with self._lock:
            if self._taken >= self.slots:
                return False
            self._taken += 1
            return True

    def give(self) -> None:
        """Release a slot."""
        with self._lock:
            self._taken -= 1

    @property
    def taken(self) -> int:
        return self._taken

    @contextmanager
    def claiming(self, run_id: str) -> Iterator[bool]:
        """Let one thread of this process claim a run at a time. False: another one claims it."""
        with self._lock:
            alone = run_id not in self._claims
            self._claims.add(run_id)
        try:
            yield alone
        finally:
            if alone:
                with self._lock:
                    self._claims.discard(run_id)

    @contextmanager
    def executing(self, handle: Handle) -> Iterator[Handle]:
        """Register a run, so that it can be found and stopped while it executes here."""
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
