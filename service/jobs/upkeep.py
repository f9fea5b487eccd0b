"""What has had its time is deleted: in small batches, so that nobody waits; twice or by several at once is fine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from service.observe.logs import event
from service.store import (
    closed_windows,
    idempotency,
    runs,
    session_expiry,
    sign_in_addresses,
    token_families,
    webhooks,
)
from service.store.database import Database, Transaction
from service.types import now_ms
from service.usage.caps import closed_before

log = logging.getLogger("slipway.upkeep")
DAY_MS = 86_400_000
BATCH = 100  # rows per transaction: SQLite has one writer, and a run takes its steps along
ROUND_SECONDS = 30.0  # of one turn, which comes every minute; the rest is for the next
REST = 1.0  # times as long as a batch took: others write meanwhile


def tidy(db: Database, retention_days: int, *, seconds: float = ROUND_SECONDS) -> dict[str, int]:
    """One turn of upkeep; how many rows of each kind are gone. Raises `DatabaseUnavailable`.

    The kinds take turns, a batch each, until nothing is left or the time is up.
    """
    chores = _chores(retention_days)
    gone = dict.fromkeys(chores, 0)
    end = time.monotonic() + seconds
    while chores:
        for name, chore in list(chores.items()):
            began = time.monotonic()
            batch = db.transact(chore)
            gone[name] += batch
            if batch < BATCH:
                del chores[name]
            else:
                time.sleep((time.monotonic() - began) * REST)
        if time.monotonic() >= end:
            break
    event(log, "upkeep", **gone, unfinished=sorted(chores))
    return gone


def _chores(retention_days: int) -> dict[str, Callable[[Transaction], int]]:
    now = now_ms()
    before = now - retention_days * DAY_MS
    return {
        "idempotency_keys": partial(idempotency.expire, limit=BATCH),
        "runs": partial(runs.expire, before=before, limit=BATCH),
        "notices": partial(webhooks.expire, before=before, limit=BATCH),
        "sessions": partial(session_expiry.expire, limit=BATCH),  # their runs and messages too
        "logins": partial(token_families.expire, before=now, limit=BATCH),
        "addresses": partial(sign_in_addresses.expire, before=now - sign_in_addresses.LIFE_MS, limit=BATCH),
        "counters": partial(closed_windows.roll_up, before=closed_before(now), limit=BATCH),
    }
