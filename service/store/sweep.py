"""Kinds of background work that are due: asked by one statement, so an idle worker makes one trip per sweep."""

from __future__ import annotations

from enum import StrEnum

import sqlalchemy as sa

from service.store import (
    agent_canaries,
    agent_versions,
    approvals,
    audit,
    batches,
    budget_waits,
    erasures,
    holds,
    ownership,
    runs,
    schedules,
    webhooks,
    workers,
)
from service.store.database import Transaction
from service.store.statement import Statement
from service.types import now_ms


class Work(StrEnum):
    """Kind of work that a sweep may find."""

    ABANDONED_RUNS = "abandoned_runs"
    QUEUED_RUNS = "queued_runs"
    HELD_RUNS = "held_runs"  # by the worker that asks
    DEAD_WORKERS = "dead_workers"
    BATCHES = "batches"
    DELIVERIES = "deliveries"
    ORPHANED_HOLDS = "orphaned_holds"
    UNLINKED_AUDIT = "unlinked_audit"
    ERASURES = "erasures"
    EXPIRED_APPROVALS = "expired_approvals"
    SCHEDULES = "schedules"
    BUDGET_WAITS = "budget_waits"
    AGENT_PINS = "agent_pins"  # new ones, or canaries, which each process has to notice
    CANARIES = "canaries"  # to be compared with the pinned version


_CONDITIONS: dict[Work, sa.ColumnElement[bool]] = {
    Work.ABANDONED_RUNS: sa.exists().where(runs.ABANDONED),
    Work.QUEUED_RUNS: sa.exists().where(runs.waits_at(sa.bindparam("now"))),
    Work.HELD_RUNS: ownership.HELD.exists(),
    Work.DEAD_WORKERS: workers.DEAD.exists(),
    Work.BATCHES: batches.ANY,
    Work.DELIVERIES: webhooks.ANY_DUE,
    Work.ORPHANED_HOLDS: sa.exists().where(holds.orphaned_before(sa.bindparam("holds_before"))),
    Work.UNLINKED_AUDIT: audit.ANY_UNLINKED,
    Work.ERASURES: erasures.ANY_DUE,
    Work.SCHEDULES: schedules.ANY_DUE,
    Work.BUDGET_WAITS: budget_waits.ANY,
    Work.AGENT_PINS: sa.or_(agent_versions.FRESH, agent_canaries.FRESH),
    Work.CANARIES: agent_canaries.ANY_DUE,
    Work.EXPIRED_APPROVALS: sa.exists().where(approvals.expired_at(sa.bindparam("now"))),
}
_DUE = Statement(sa.select(*(condition.label(work) for work, condition in _CONDITIONS.items())))


def due(tx: Transaction, worker_id: str) -> set[Work]:
    """Return the kinds of which there is work, for any worker or for this one."""
    now = now_ms()
    values = {"now": now, "worker": worker_id, "holds_before": now - holds.ORPHANED_AFTER_MS}
    values["pins_after"] = now - agent_versions.FRESH_MS
    row = tx.row(_DUE, values) or {}
    return {work for work in Work if row.get(work)}
