"""A circuit breaker per model: `circuitbreaker` keeps the state, this makes it safe for threads and for streams.

Used alone the library lets every waiting call through when half-open, closes on a late success from before the
trip, counts a client that goes away as a success, and has no lock. Here a call asks first (`allow`), says later
how it went, and a call from before the last change of state has no say.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

from circuitbreaker import STATE_CLOSED, STATE_HALF_OPEN, CircuitBreaker  # type: ignore[import-untyped]

from service.errors import ModelUnavailable


class BreakerPermit(NamedTuple):
    """A call that was let through; `probe` when it is the one that tries whether the model is back."""

    era: int
    probe: bool


class _ModelDown(Exception):
    """All the library is told of a failure. The failure itself would keep a whole call's frames alive in it."""


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
        if self._circuit.state == STATE_CLOSED:
            return 0.0
        return max(float(self._circuit.open_remaining), 1.0 if self._probing else 0.0)

    def allow(self) -> BreakerPermit:
        """Ask before calling. Raises `ModelUnavailable` at once while open, and while a probe is out."""
        with self._lock:
            state = self._circuit.state
            if state == STATE_CLOSED:
                return BreakerPermit(self._era, probe=False)
            if state == STATE_HALF_OPEN and not self._probing:
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
                self._circuit.__exit__(_ModelDown, _ModelDown(), None)  # how the library is told of a failure
                self._probing = False
                self._era += self._circuit.state != STATE_CLOSED

    def release(self, permit: BreakerPermit) -> None:
        """The call says nothing about the model's health: its client left, or the request itself was at fault."""
        with self._lock:
            if permit.probe and permit.era == self._era:
                self._probing = False
