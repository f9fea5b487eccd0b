"""What has had its time is deleted: in small batches, so that nobody waits; twice or by several at once is fine."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial

from service.observe.logs import event
from service.store import addresses, idempotency, runs, sessions, tokens, webhooks
from service.store.base import Database, Transaction
from service.types import now_ms

log = logging.getLogger("slipway.upkeep")
DAY_MS = 86_400_000
BATCH = 200  # rows per transaction: SQLite has one writer, and a run takes its steps along
MOST_BATCHES = 50  # of one kind in one turn; the rest is for the next, a minute later


def tidy(db: Database, retention_days: int) -> dict[str, int]:
    """One turn of upkeep; how many rows of each kind are gone. Raises `DatabaseUnavailable`."""
    before = now_ms() - retention_days * DAY_MS
    chores: dict[str, Callable[[Transaction], int]] = {
        "idempotency_keys": partial(idempotency.expire, limit=BATCH),
        "runs": partial(runs.expire, before=before, limit=BATCH),
        "notices": partial(webhooks.expire, before=before, limit=BATCH),
        "sessions": partial(sessions.expire, limit=BATCH),
        "logins": partial(tokens.delete_expired, before=now_ms()),
        "addresses": partial(addresses.expire, before=now_ms() - addresses.LIFE_MS, limit=BATCH),
    }
    gone = {name: _in_batches(db, chore) for name, chore in chores.items()}
    event(log, "upkeep", **gone)
    return gone


def _in_batches(db: Database, chore: Callable[[Transaction], int]) -> int:
    gone = 0
    for _ in range(MOST_BATCHES):
        batch = db.transact(chore)
        gone += batch
        if batch < BATCH:
            break
    return gone
