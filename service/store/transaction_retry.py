"""Retry of transactions that PostgreSQL rolled back: deadlock or serialization failure.

Locks are taken in one order ("Locks" in docs/architecture.md), so a deadlock is a bug here: each is logged and counted.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from service.errors import DatabaseUnavailable
from service.store.actor import current_actor

T = TypeVar("T")
log = logging.getLogger("slipway.database")
MAX_RETRIES = 8
FIRST_PAUSE, MAX_PAUSE = 0.01, 0.25  # seconds
_CAUSES = {"40P01": "deadlock", "40001": "serialization_failure"}  # SQLSTATEs


def collision_of(error: BaseException | None) -> str | None:
    """Name the collision behind a driver's error or SQLAlchemy's wrapper of it; None: it is another error."""
    driver_error = getattr(error, "orig", error)
    return _CAUSES.get(getattr(driver_error, "sqlstate", None) or "")


def retry_collisions(attempt: Callable[[], T], retried: Callable[[str], object]) -> T:
    """Run a transaction; on collision call `retried(cause)` and retry with back-off, `MAX_RETRIES` times at most.

    Raises the last collision's `DatabaseUnavailable`.
    """
    pause = FIRST_PAUSE
    for _ in range(MAX_RETRIES):
        try:
            return attempt()
        except DatabaseUnavailable as error:
            cause = collision_of(error.__cause__)
            if cause is None:
                raise
        log.warning("transaction_retried", extra={"cause": cause, "actor": str(current_actor())})
        retried(cause)
        time.sleep(pause * random.uniform(0.2, 1.0))  # jitter: two that collided must not do so again
        pause = min(pause * 2, MAX_PAUSE)
    return attempt()
