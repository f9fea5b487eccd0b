"""Circuit breaker per model: the library `circuitbreaker` behind a lock, for threads and for streams.

Used alone the library lets every waiting call through when half-open, closes on a late success from before the
trip, and counts a client that goes away as a success. Here a call asks first (`allow`) and reports later how it
went; a call from before the last change of state has no say.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import NamedTuple

from circuitbreaker import CircuitBreaker  # type: ignore[import-untyped]

from service.errors import ModelUnavailable


class BreakerPermit(NamedTuple):
    """A call that was let through; `probe` when it is the one that tries whether the model is back."""

    era: int
    probe: bool


class _ModelDown(Exception):
    """Failure as the library counts it."""


class Breaker:
    """Opens after `failures` failures in a row; lets one probe through after `recovery` seconds."""

    def __init__(self, name: str, failures: int, recovery: float) -> None:
        self._circuit = CircuitBreaker(
            failure_threshold=failures, recovery_timeout=recovery, expected_exception=_ModelDown, name=name
        )
        self._lock = threading.Lock()
        self._era = 0
        self._probing = False

    @property
    def state(self) -> str:
        """`closed`, `open` or `half_open`."""
        return str(self._circuit.state)

    @property
    def retry_after(self) -> float:
        """Seconds until a call may be let through; 0 when one may be now."""
        if self._circuit.closed:
            return 0.0
        return max(float(self._circuit.open_remaining), 1.0 if self._probing else 0.0)

    def allow(self) -> BreakerPermit:
        """Ask before calling. Raises `ModelUnavailable` at once while open, and while a probe is out."""
        with self._lock:
            if self._circuit.closed:
                return BreakerPermit(self._era, probe=False)
            if not self._circuit.opened and not self._probing:
                self._probing = True
                return BreakerPermit(self._era, probe=True)
            raise ModelUnavailable(
                "The model has been failing and is given a pause", retry_after=self.retry_after
            )

    def record_success(self, permit: BreakerPermit) -> None:
        with self._lock:
            if permit.era == self._era:
                self._circuit.reset()
                self._probing = False
                self._era += permit.probe

    def record_failure(self, permit: BreakerPermit) -> None:
        with self._lock:
            if permit.era == self._era:
                failure = _ModelDown()
                with suppress(_ModelDown), self._circuit:
                    raise failure
                failure.__traceback__ = None  # the library keeps it, and with it the frames of the whole call
                self._probing = False
                self._era += not self._circuit.closed

    def release(self, permit: BreakerPermit) -> None:
        """End a call that says nothing about the model's health: its client left, or the request was at fault."""
        with self._lock:
            if permit.probe and permit.era == self._era:
                self._probing = False
