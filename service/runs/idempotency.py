"""Retry safety: the same key, caller and body within a day is the same request."""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import orjson

from service.errors import IdempotencyMismatch
from service.store import idempotency as rows
from service.store.base import Transaction
from service.types import now_ms

LIFE_MS = 24 * 3_600_000
AUTO = "auto-"  # how a key begins that the load balancer made: no client will ask with it again later


class AlreadyStarted(Exception):
    """The key is taken by a run that was started before."""

    def __init__(self, run_id: str) -> None:
        super().__init__(run_id)
        self.run_id = run_id


class Key(NamedTuple):
    """A caller's `Idempotency-Key` with the fingerprint of what was asked under it."""

    user_id: str
    key: str
    fingerprint: str

    @property
    def automatic(self) -> bool:
        return self.key.startswith(AUTO)

    def start(self, tx: Transaction, run_id: str) -> None:
        """Tie the key to a new run. Raises `AlreadyStarted` or `IdempotencyMismatch`."""
        first = rows.claim(tx, self.user_id, self.key, self.fingerprint, run_id, now_ms() + LIFE_MS)
        if first is None or first["run_id"] == run_id:
            return
        self.check(first["fingerprint"])
        raise AlreadyStarted(first["run_id"])

    def started(self, tx: Transaction) -> str | None:
        """The run that was started under the key, if any. Raises `IdempotencyMismatch`."""
        first = rows.find(tx, self.user_id, self.key)
        if first is None or first["expires_at"] <= now_ms():
            return None
        self.check(first["fingerprint"])
        run_id: str | None = first["run_id"]
        return run_id

    def check(self, fingerprint: str) -> None:
        if fingerprint != self.fingerprint:
            raise IdempotencyMismatch("This Idempotency-Key was used with another body or path.")


def fingerprint(path: str, body: Any) -> str:
    """A digest of what is asked; the order of fields does not matter."""
    return hashlib.sha256(path.encode() + b"\n" + orjson.dumps(body, option=orjson.OPT_SORT_KEYS)).hexdigest()
