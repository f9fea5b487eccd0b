"""Retention: delete expired rows in small batches; idempotent, and safe when several workers run it at once."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from service.store import (
    closed_windows,
    idempotency,
    runs,
    savings,
    schedules,
    session_expiry,
    sign_in_addresses,
    signing_keys,
    task_line,
    token_families,
    webhooks,
)
from service.store.database import Database, Transaction
from service.types import now_ms
from service.usage.caps import closed_before

log = logging.getLogger("slipway.upkeep")
DAY_MS = 86_400_000
BATCH = 100  # rows per transaction: SQLite has one writer, and deleting a run cascades to its steps
PASS_SECONDS = 30.0  # of one pass, once a minute; the next pass goes on
PAUSE_FACTOR = 1.0  # times the duration of a batch: lets others write


def delete_expired(db: Database, retention_days: int, *, seconds: float = PASS_SECONDS) -> dict[str, int]:
    """Run one upkeep pass; return the number of deleted rows by kind. Raises `DatabaseUnavailable`.

    Round robin over the kinds, one batch each, until nothing is left or `seconds` are over.
    """
    pending = _deletions(retention_days)
    deleted = dict.fromkeys(pending, 0)
    end = time.monotonic() + seconds
    while pending:
        for name, delete in list(pending.items()):
            began = time.monotonic()
            batch = db.transact(delete)
            deleted[name] += batch
            if batch < BATCH:
                del pending[name]
            else:
                time.sleep((time.monotonic() - began) * PAUSE_FACTOR)
        if time.monotonic() >= end:
            break
    log.info("upkeep", extra={**deleted, "unfinished": sorted(pending)})
    return deleted


def _deletions(retention_days: int) -> dict[str, Callable[[Transaction], int]]:
    now = now_ms()
    before = now - retention_days * DAY_MS
    return {
        "idempotency_keys": partial(idempotency.expire, limit=BATCH),
        "runs": partial(runs.expire, before=before, limit=BATCH),
        "notices": partial(webhooks.expire, before=before, limit=BATCH),
        "schedule_slots": partial(schedules.expire, before=before, limit=BATCH),
        "sessions": partial(session_expiry.expire, limit=BATCH),  # their runs and messages too
        "logins": partial(token_families.expire, before=now, limit=BATCH),
        "signing_keys": partial(signing_keys.expire, before=now, limit=BATCH),
        "addresses": partial(sign_in_addresses.expire, before=now - sign_in_addresses.LIFE_MS, limit=BATCH),
        "task_turns": partial(task_line.expire, limit=BATCH),
        "savings": partial(savings.expire, limit=BATCH),
        "counters": partial(closed_windows.roll_up, before=closed_before(now), limit=BATCH),
    }
