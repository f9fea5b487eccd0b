"""How the service stands: what runs, waits, is held or overdue now; read for metrics and the health view.

Each figure is of few rows, found by a partial index or in a small table, however large the others are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store import run_lists, task_line, workers
from service.store.database import Row, Transaction, clock_ms
from service.store.schema import (
    UNFINISHED,
    approvals,
    audit,
    audit_unlinked,
    caps,
    counters,
    holds,
    runs,
    schedules,
)
from service.store.statement import Statement
from service.types import NANO, Priority, now_ms

_TOKENS = runs.c.input_tokens + runs.c.output_tokens + runs.c.cache_read_tokens + runs.c.cache_creation_tokens
_RUNS = Statement(
    sa.select(
        sa.func.count(sa.distinct(runs.c.session_id)).label("sessions"),
        sa.func.coalesce(sa.func.max(_TOKENS), 0).label("tokens"),
    ).where(sa.text(UNFINISHED))
)
_APPROVALS = Statement(
    sa.select(sa.func.count().label("count"), sa.func.min(approvals.c.created_at).label("since")).where(
        approvals.c.status == "pending"
    )
)
_SCHEDULES = Statement(
    sa.select(sa.func.count().label("count"), sa.func.min(schedules.c.next_at).label("since")).where(
        schedules.c.next_at <= clock_ms()
    )
)
_HOLDS = Statement(
    sa.select(
        sa.func.count().label("count"),
        sa.func.min(holds.c.called_at).label("since"),
        sa.func.coalesce(sa.func.sum(holds.c.amount_nano), 0).label("nano"),
    )
)
_UNLINKED = Statement(
    sa.select(sa.func.min(audit.c.at).label("since")).where(  # ids are in the order of time
        audit.c.id == sa.select(sa.func.min(audit_unlinked.c.audit_id)).scalar_subquery()
    )
)
_COMMITTED = counters.c.spent_nano + counters.c.held_nano
_CHANGED_SINCE = sa.exists().where(
    caps.c.scope == counters.c.scope,
    caps.c.period == counters.c.period,
    sa.or_(caps.c.updated_at >= counters.c.starts_at, caps.c.until >= counters.c.starts_at),
)
# Of each stripe: where a window is passed, one of its stripes is.
_OVERSHOOT = Statement(
    sa.select(sa.func.coalesce(sa.func.max(_COMMITTED - counters.c.cap_nano), 0).label("nano")).where(
        sa.text("period <> 'total'"),  # as the index says it
        sa.or_(
            counters.c.starts_at == sa.bindparam("day", type_=sa.BigInteger()),
            counters.c.starts_at == sa.bindparam("month", type_=sa.BigInteger()),
        ),
        counters.c.cap_nano < _COMMITTED,
        counters.c.key_id.is_(None),  # of end users, whose default may have changed
        ~_CHANGED_SINCE,
    )
)


class Queue(NamedTuple):
    """Rows that wait: how many, and when the oldest began to (ms); None: there are none."""

    size: int
    since: int | None

    def age(self, now: int) -> float:
        """Return the age of the oldest in seconds, 0 where there is none."""
        return 0.0 if self.since is None else max(0.0, (now - self.since) / 1000)


class Standing(NamedTuple):
    """State of the service at `now` (ms)."""

    now: int
    runs: dict[str, Queue]  # unfinished ones, by status
    sessions: int  # that have one
    most_tokens: int  # of one of them
    tasks: dict[Priority, Queue]  # in line
    approvals: Queue
    schedules: Queue  # overdue; `since`: the oldest slot
    holds: Queue
    held_nano: int
    unlinked_since: int | None  # of the oldest audit row outside the chain
    processes: dict[str, int]  # with a lease, by kind

    @property
    def held_usd(self) -> float:
        return self.held_nano / NANO

    @property
    def unlinked_seconds(self) -> float:
        return Queue(0, self.unlinked_since).age(self.now)


def read(tx: Transaction) -> Standing:
    now = now_ms()
    unfinished, held = _one(tx, _RUNS), _one(tx, _HOLDS)
    return Standing(
        now=now,
        runs={status: _queue(row) for status, row in run_lists.unfinished(tx).items()},
        sessions=unfinished["sessions"],
        most_tokens=int(unfinished["tokens"]),
        tasks={priority: _queue(row) for priority, row in task_line.depth(tx).items()},
        approvals=_queue(_one(tx, _APPROVALS)),
        schedules=_queue(_one(tx, _SCHEDULES)),
        holds=_queue(held),
        held_nano=int(held["nano"]),
        unlinked_since=_one(tx, _UNLINKED)["since"],
        processes={kind: workers.alive(tx, kind) for kind in ("web", "task")},
    )


def overshoot(tx: Transaction, day: int, month: int) -> int:
    """Return the most by which a counter passes its cap in the windows that began at `day` and `month` (ms), in nano.

    Without windows whose cap was changed, or whose override has ended, since they began: there it may be below what was
    spent before. Without those of end users, who share a default that may have changed.
    """
    return int(_one(tx, _OVERSHOOT, {"day": day, "month": month})["nano"])


def _queue(row: Row) -> Queue:
    return Queue(row["count"], row["since"])


def _one(tx: Transaction, statement: Statement, values: dict[str, Any] | None = None) -> Row:
    row = tx.row(statement, values)
    assert row is not None, "an aggregate"
    return row
