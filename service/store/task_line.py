"""Line of queued tasks: which one a free worker takes next.

Fair by turns: of the workspaces with tasks in line, the one whose turn was the longest ago; of its users likewise; of a
user's tasks the oldest. A user with ten thousand tasks has one turn in a round, as everybody else. The order is found
when a task is taken, so only those share who wait at that moment, and queueing a task writes nothing but its row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from service.store.database import Row, Transaction
from service.store.schema import IN_LINE, UNFINISHED, agent_stops, runs, steps, task_turns
from service.store.statement import Statement
from service.store.steps import NOTE
from service.types import PRIORITIES, Priority, Run, RunStatus, now_ms

BATCH = PRIORITIES.index("batch")
ASIDE_MS = 15_000  # until a task that waits for its session is tried again, where nothing wakes it before
FORGOTTEN_AFTER = 10_000  # turns: whoever had the last one before these counts as one who never had any

_LINE = sa.text(IN_LINE)
# As a list: PostgreSQL would join with a sub-query, and read the whole line for it.
_MAY_RUN = runs.c.agent.not_in(sa.select(agent_stops.c.agent))


def _any(priority: Any) -> sa.ColumnElement[bool]:
    return sa.exists(sa.select(runs.c.id).where(_LINE, runs.c.priority == priority, _MAY_RUN))


# Of the priorities, in the order given, the first with a task in line; the last one where there is none.
_WANTED = [sa.bindparam(f"wanted{n}", type_=sa.SmallInteger()) for n in range(len(PRIORITIES))]
_PRIORITY = sa.select(
    sa.case(*((_any(wanted), wanted) for wanted in _WANTED[:-1]), else_=_WANTED[-1]).label("priority")
).cte("chosen")
_CHOSEN = sa.select(_PRIORITY.c.priority).scalar_subquery()


def _holders(column: sa.Column[str], name: str, *where: sa.ColumnElement[bool]) -> sa.ScalarSelect[str]:
    """Select the holder in line whose turn was the longest ago.

    Holders are found one by one, each by a look-up in the index: reading the line would take longer the longer it is.
    """
    inner = sa.select(column).where(_LINE, runs.c.priority == _CHOSEN, _MAY_RUN, *where)
    inner = inner.order_by(column).limit(1)
    first = sa.select(inner.scalar_subquery().label("id")).cte(name, recursive=True)
    after = inner.where(column > first.c.id).correlate(first).scalar_subquery()
    every = first.union_all(sa.select(after).where(first.c.id.is_not(None)))
    turns = sa.and_(task_turns.c.priority == _CHOSEN, task_turns.c.holder == every.c.id)
    return (
        sa.select(every.c.id)
        .select_from(every.outerjoin(task_turns, turns))
        .where(every.c.id.is_not(None))
        .order_by(sa.func.coalesce(task_turns.c.turn, 0), every.c.id)
        .limit(1)
        .scalar_subquery()
    )


_FIRST_WORKSPACE = sa.select(_holders(runs.c.workspace_id, "workspaces_in_line").label("id")).cte("first")
_WORKSPACE = sa.select(_FIRST_WORKSPACE.c.id).scalar_subquery()
_USER = _holders(runs.c.user_id, "users_in_line", runs.c.workspace_id == _WORKSPACE)
_NEXT = Statement(
    sa.select(runs.c.id, runs.c.session_id, runs.c.priority, runs.c.workspace_id, runs.c.user_id)
    .where(_LINE, runs.c.priority == _CHOSEN, _MAY_RUN)
    .where(runs.c.workspace_id == _WORKSPACE, runs.c.user_id == _USER)
    .order_by(runs.c.id)
    .limit(1)
    .with_for_update(skip_locked=True)
)
_ANY = Statement(sa.select(runs.c.id).where(_LINE, _MAY_RUN).limit(1))


def place_of(run: Run) -> dict[str, Any]:
    """Return the columns with which a task waits in line; none for any other run."""
    if run.mode != "queue":
        return {}
    return {"priority": PRIORITIES.index(run.request.priority), "in_line": True}


def next_task(tx: Transaction, order: Sequence[int]) -> Row | None:
    """Lock the task whose turn it is: `id`, `session_id`, and whose turn it is. `order`: priorities, the first wanted.

    None: none is in line, or others are just taking those of whoever is next.
    """
    return tx.row(_NEXT, {f"wanted{n}": priority for n, priority in enumerate(order)})


def is_empty(tx: Transaction) -> bool:
    """Return whether no task is in line that may be taken."""
    return tx.row(_ANY) is None


class _SetTurn(sa.Insert):
    """Insert of rows that replaces the turn of those that exist."""

    inherit_cache = True


@compiles(_SetTurn)
def _set_turn(element: Any, compiler: Any, **kw: Any) -> str:
    keys = ", ".join(column.name for column in task_turns.primary_key)
    return f"{compiler.visit_insert(element, **kw)} ON CONFLICT ({keys}) DO UPDATE SET turn = excluded.turn"


_OF_PRIORITY = sa.bindparam("of", type_=sa.SmallInteger())
_LAST_TURN = (
    sa.select(sa.func.coalesce(sa.func.max(task_turns.c.turn), 0))
    .where(task_turns.c.priority == _OF_PRIORITY)
    .correlate(None)
    .scalar_subquery()
)
_TAKE_TURN = Statement(
    _SetTurn(task_turns)
    .values(priority=_OF_PRIORITY, holder=sa.bindparam("whose"), turn=_LAST_TURN + 1)
    .inline()
)


def take_turn(tx: Transaction, task: Row) -> None:
    """Count the turn of a task's workspace and user: their next ones come after everybody else's."""
    for holder in sorted((task["user_id"], task["workspace_id"])):
        tx.send(_TAKE_TURN, {"of": task["priority"], "whose": holder})


_STEP_ASIDE = Statement(
    sa.update(runs)
    .where(runs.c.id == sa.bindparam("run"), runs.c.status == RunStatus.QUEUED)
    .values(in_line=False, wake_at=sa.bindparam("later"))
)


def step_aside(tx: Transaction, run_id: str) -> None:
    """Take a queued task out of the line until its session's turn ends."""
    tx.send(_STEP_ASIDE, {"run": run_id, "later": now_ms() + ASIDE_MS})


_later = steps.alias()
_HAS_WAITED = sa.exists(  # for money, and has not begun since: the note of that is its last
    sa.select(steps.c.n).where(
        steps.c.run_id == runs.c.id,
        steps.c.n == sa.select(sa.func.max(_later.c.n)).where(_later.c.run_id == runs.c.id).scalar_subquery(),
        steps.c.kind == NOTE,
        steps.c.name == RunStatus.WAITING_BUDGET,
    )
)
# A task that was handed over or decided about goes on at once, and one beside the line may have been missed by whoever
# wakes it.
_IS_DUE = sa.or_(
    runs.c.status == RunStatus.PAUSED,
    sa.and_(
        runs.c.status == RunStatus.QUEUED,
        sa.or_(~runs.c.in_line, sa.and_(runs.c.attempt > 0, runs.c.priority != BATCH, ~_HAS_WAITED)),
    ),
)
_DUE = Statement(sa.select(runs.c.id).where(runs.c.id == sa.bindparam("run"), _IS_DUE))


def needs_no_turn(tx: Transaction, run_id: str) -> bool:
    """Return whether a run that nobody executes may go on without a turn, as it has had one or is in no line."""
    return tx.row(_DUE, {"run": run_id}) is not None


def depth(tx: Transaction) -> dict[Priority, Row]:
    """Count the tasks in line by priority: `count`, and `since`, when the oldest was queued (ms)."""
    counts = sa.select(
        runs.c.priority, sa.func.count().label("count"), sa.func.min(runs.c.created_at).label("since")
    )
    rows = tx.rows(counts.where(_LINE).group_by(runs.c.priority))
    return {PRIORITIES[row["priority"]]: row for row in rows}


_WAITING = sa.or_(runs.c.status == RunStatus.QUEUED, runs.c.status == RunStatus.WAITING_BUDGET)
_BY_USER = Statement(
    sa.select(runs.c.user_id, sa.func.count().label("count"))
    .where(sa.text(f"runs.{UNFINISHED}"), _WAITING)
    .group_by(runs.c.user_id)
)


def waiting_by_user(tx: Transaction) -> dict[str, int]:
    """Count the runs that wait for a worker or for money, in line or beside it, by user."""
    return {row["user_id"]: row["count"] for row in tx.rows(_BY_USER)}


def expire(tx: Transaction, limit: int) -> int:
    """Delete at most `limit` turns that were given long ago; return how many."""
    latest = task_turns.alias()
    last = sa.select(sa.func.max(latest.c.turn)).where(latest.c.priority == task_turns.c.priority)
    key = sa.tuple_(task_turns.c.priority, task_turns.c.holder)
    old = sa.select(task_turns.c.priority, task_turns.c.holder)
    old = old.where(task_turns.c.turn < last.correlate(task_turns).scalar_subquery() - FORGOTTEN_AFTER)
    old = old.order_by(task_turns.c.priority, task_turns.c.holder).limit(limit)
    return tx.execute(sa.delete(task_turns).where(key.in_(old.with_for_update(skip_locked=True))))
