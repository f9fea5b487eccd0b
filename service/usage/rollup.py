"""Maintenance of the daily sums that usage reports read: see `service.store.rollup`."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from service.store import rollup
from service.store.database import Database
from service.store.schema import SUMS
from service.usage.ledger import Fault

log = logging.getLogger("slipway.upkeep")
MAX_BATCHES = 50  # per call, each a transaction of its own


def roll_up(db: Database, batches: int = MAX_BATCHES, size: int = rollup.BATCH) -> int:
    """Recount closed days, then add calls of days that have ended; return the number of days closed."""
    for day in db.query(rollup.days_to_check):
        if not db.transact(partial(rollup.recount, day=day)):
            log.warning("usage_day_reopened", extra={"day": day})
    closed = 0
    for _ in range(batches):
        following = db.query(rollup.next_day)
        if following is None:
            break
        closed += db.transact(partial(rollup.roll, day=following, size=size))
    return closed


def check(db: Database) -> Iterator[Fault]:
    """Compare every closed day's sums with the ledger's; one transaction and at most a few rows per day."""
    for day in db.query(rollup.closed_days):
        for table, row in db.query(lambda tx, day=day: list(rollup.differences(tx, day))):  # type: ignore[misc]
            differ = ", ".join(f"{name} {row[name]:+}" for name in SUMS if row[name])
            key = " ".join(str(value) for name, value in row.items() if name not in SUMS)
            yield Fault(f"{table} {key}", f"it differs from the ledger: {differ}")
