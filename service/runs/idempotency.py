"""Idempotency: the same key, caller and body within a day is the same request.

A run that failed for a transient reason releases its key, so that a retry can succeed: see ADR 0006.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import orjson

from service.error_table import all_errors, is_retryable
from service.errors import IdempotencyMismatch
from service.store import idempotency as rows
from service.store import runs, tool_calls
from service.store.database import Transaction
from service.text import exact_json
from service.types import RunStatus, now_ms

LIFE_MS = 24 * 3_600_000
PASSES = frozenset(error.code for error in all_errors() if is_retryable(error))
AUTO = "auto-"  # prefix of keys made by the load balancer: no client retries with them later


class AlreadyStarted(Exception):
    """Raised when a run was started with the key before."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Key(NamedTuple):
    """Idempotency key of a caller, with the fingerprint of its request."""

    user_id: str
    key: str
    fingerprint: str

    @property
    def automatic(self) -> bool:
        return self.key.startswith(AUTO)

    def start(self, tx: Transaction, run_id: str) -> None:
        """Bind the key to a new run. Raises `AlreadyStarted` or `IdempotencyMismatch`."""
        until = now_ms() + LIFE_MS
        first = rows.claim(tx, self.user_id, self.key, self.fingerprint, run_id, until)
        if first is None or first["run_id"] == run_id:
            return
        self.check(first["fingerprint"])
        started = first["run_id"]
        if _gives_back(tx, started):
            started = rows.move(tx, self.user_id, self.key, started, run_id, until)
        if started != run_id:
            raise AlreadyStarted(started)

    def started(self, tx: Transaction) -> str | None:
        """Find the run started with the key, if any. Raises `IdempotencyMismatch`."""
        first = rows.find(tx, self.user_id, self.key)
        if first is None or first["expires_at"] <= now_ms():
            return None
        self.check(first["fingerprint"])
        run_id: str = first["run_id"]
        return None if _gives_back(tx, run_id) else run_id

    def check(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key was used with another body or path.")


def _gives_back(tx: Transaction, run_id: str) -> bool:
    """Return whether a run failed for a transient reason, its `Retry-After` has passed, and it has changed nothing.

    Changed nothing: no tool call was claimed. The pause keeps a load balancer, which retries a 503 at once, from
    calling a failing model twice.
    """
    run = runs.get(tx, run_id)
    if run is None or run.status is not RunStatus.FAILED or run.error is None or run.finished_at is None:
        return False
    pause_ms = int(run.error.get("retry_after", 1)) * 1000
    passed = run.error["code"] in PASSES and now_ms() >= run.finished_at + pause_ms
    return passed and not tool_calls.of_run(tx, run_id)


def fingerprint(path: str, body: Any) -> str:
    """Hash the request's path and body; the order of fields does not matter."""
    return hashlib.sha256(
        path.encode() + b"\n" + exact_json.dumps(body, option=orjson.OPT_SORT_KEYS)
    ).hexdigest()
