"""Circuit breaker per model: the library `circuitbreaker` behind a lock, for threads and streams.

Used alone, the library lets every waiting call through when half-open, closes on a late success from before the trip,
and counts a departed client as a success. Here a call asks first (`allow`) and reports its outcome later; a call from
before the last state change is ignored.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import NamedTuple

from circuitbreaker import CircuitBreaker  # type: ignore[import-untyped]

from service.errors import ModelUnavailable


class BreakerState(NamedTuple):
    """State of a model's breaker; `retry_after`: seconds until a call may be let through."""

    model: str
    state: str
    retry_after: float
    provider: str


class BreakerPermit(NamedTuple):
    """Permit for one call; `probe`: it tests whether the model has recovered."""

    era: int
    probe: bool


class _ModelDown(Exception):
    """Failure passed to the library."""


class Breaker:
    """Breaker that opens after `failures` consecutive failures and lets one probe through after `recovery` seconds."""

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
        """Request a permit before calling. Raises `ModelUnavailable` at once while open or while a probe is running."""
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
        """End a call whose outcome is no evidence of the model's health: client gone, request at fault."""
        with self._lock:
            if permit.probe and permit.era == self._era:
                self._probing = False
