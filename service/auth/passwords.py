"""Passwords: argon2id, OWASP's 19 MiB profile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from service.errors import Overloaded, fault

MIN_PASSWORD, MAX_PASSWORD = 8, 256  # characters
_CONCURRENCY = 2  # per process: 19 MiB each, and 30 ms of one core
_TIMEOUT = 3.0  # seconds a log-in waits for a hashing slot


class Passwords:
    """Hashes and verifies passwords, a few at once. Raises `Overloaded` where too many wait."""

    def __init__(self) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._slots = threading.BoundedSemaphore(_CONCURRENCY)
        self.dummy = self._hasher.hash(
            "nobody has this password"
        )  # compared where there is none: at the same cost

    def hash(self, password: str) -> str:
        """Return a password's hash. Raises `Invalid` for one that is too short or too long."""
        if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
            raise fault("/password", f"Use {MIN_PASSWORD} to {MAX_PASSWORD} characters.")
        with self._slot():
            return self._hasher.hash(password)

    def matches(self, password_hash: str, password: str) -> bool:
        with self._slot():
            try:
                return self._hasher.verify(password_hash, password)
            except (VerificationError, InvalidHashError):
                return False

    @contextmanager
    def _slot(self) -> Iterator[None]:
        if not self._slots.acquire(timeout=_TIMEOUT):
            raise Overloaded("Too many log-ins at once.", retry_after=2)
        try:
            yield
        finally:
            self._slots.release()
