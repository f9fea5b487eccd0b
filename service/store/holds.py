"""Open holds: model calls in flight and trees of sub-agents, with the most that each may cost."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from service.errors import AgentStopped
from service.store import agent_stops, cap_scopes
from service.store.database import Row, Transaction
from service.store.schema import batch_items, holds, runs
from service.store.statement import Statement
from service.store.visibility import in_workspace
from service.types import RunStatus


class Hold(NamedTuple):
    """Money reserved for one model call, or for a tree of sub-agents. `called_at` (ms) selects its budget windows.

    The hold of a tree has its own id as `tree_id`, and as `amount_nano` what no call has taken. The hold of a call in
    the tree was taken from it, so it is held against the same counters already.
    """

    id: str
    run_id: str
    attempt: int
    step: int
    workspace_id: str
    user_id: str
    key_id: str | None
    agent: str
    session_id: str | None
    model: str
    price_id: str
    amount_nano: int
    called_at: int
    counters: tuple[str, ...] = ()
    end_user: str | None = None
    tree_id: str | None = None

    @property
    def is_tree(self) -> bool:
        return self.tree_id == self.id

    @property
    def in_tree(self) -> bool:
        """Return whether it was taken from the hold of a tree."""
        return self.tree_id is not None and not self.is_tree

    @property
    def scopes(self) -> list[str]:
        """Scopes whose caps this hold counts against."""
        return scopes_of(
            workspace_id=self.workspace_id,
            user_id=self.user_id,
            key_id=self.key_id,
            agent=self.agent,
            session_id=self.session_id,
            end_user=self.end_user,
        )


COLUMN_OF = {
    "workspace": "workspace_id",
    "user": "user_id",
    "key": "key_id",
    "agent": "agent",
    "session": "session_id",
}


def scopes_of(*, end_user: str | None, **whose: str | None) -> list[str]:
    """List the scopes whose caps a call counts against; `whose` has the columns of `COLUMN_OF`."""
    if whose["user_id"] == whose["workspace_id"]:  # which has embedded documents by itself
        whose["user_id"] = None
    values = ((kind, whose[column]) for kind, column in COLUMN_OF.items())
    found = ["service", *(f"{kind}:{value}" for kind, value in values if value)]
    if whose["key_id"] and end_user:
        found.append(cap_scopes.of_end_user(whose["key_id"], end_user))
    return found


_INSERT = agent_stops.insert_unless_stopped(holds, Hold._fields)
_CLOSE = Statement(
    sa.delete(holds)
    .where(holds.c.run_id == sa.bindparam("run_id"), holds.c.id == sa.bindparam("id"))
    .returning(holds)
)
_ADOPT = (
    sa.update(holds)
    .where(holds.c.run_id == sa.bindparam("of_run"), holds.c.id == sa.bindparam("of"))
    .values(counters=sa.bindparam("listed"))
)
_OF_TREE = (holds.c.run_id == sa.bindparam("of_run"), holds.c.id == sa.bindparam("of_tree"))
_PART = sa.bindparam("part", type_=sa.BigInteger())
_TAKE_FROM = Statement(
    sa.update(holds)
    .where(*_OF_TREE, holds.c.amount_nano >= _PART)
    .values(amount_nano=holds.c.amount_nano - _PART)
)
_GIVE_BACK = Statement(sa.update(holds).where(*_OF_TREE).values(amount_nano=holds.c.amount_nano + _PART))

ORPHANED_AFTER_MS = 60_000  # the next worker of the run should settle them: then the run's cost is right
_IN_BATCH = sa.exists().where(batch_items.c.run_id == holds.c.run_id, batch_items.c.step == holds.c.step)


def insert(tx: Transaction, hold: Hold) -> bool:
    """Insert a hold. False: it exists already, from a commit whose answer was lost.

    Raises `AgentStopped`, in that case too: it is settled as a lost call then, rather than called for late. The caller
    shares the lock of the agent's scope, so no hold is committed after the stop is.
    """
    if tx.execute(_INSERT, hold._asdict(), expect=1) == 1:
        return True
    if agent_stops.get(tx, hold.agent) is not None:
        raise AgentStopped(f"The agent {hold.agent} is stopped.")
    return False


def close(tx: Transaction, hold: Hold) -> Hold | None:
    """Delete and return a hold as it is stored, exactly once. None: it was closed before.

    A cap that was set meanwhile has added its counter to the stored hold.
    """
    usual = {**hold._asdict(), "counters": list(hold.counters)}
    row = tx.row(_CLOSE, {"run_id": hold.run_id, "id": hold.id}, expect=usual)
    return None if row is None else _hold(row)


def take_from_tree(tx: Transaction, hold: Hold) -> bool:
    """Take a new hold out of its tree's. False: not so much is left, or the tree has ended."""
    part = {"of_run": hold.run_id, "of_tree": hold.tree_id, "part": hold.amount_nano}
    return tx.execute(_TAKE_FROM, part, expect=1) == 1


def give_back(tx: Transaction, hold: Hold, part: int) -> bool:
    """Return a part (nano-dollars) of a hold to its tree's. False: the tree has ended.

    It comes before `close`: rows are locked in the order of ids, and a tree's is smaller than those of its calls.
    """
    given = {"of_run": hold.run_id, "of_tree": hold.tree_id, "part": part}
    return tx.execute(_GIVE_BACK, given, expect=1) == 1


def of_tree(tx: Transaction, tree: Hold) -> list[Hold]:
    """List the hold of a tree, if it is open, and those of its calls in flight."""
    query = sa.select(holds).where(holds.c.run_id == tree.run_id, holds.c.tree_id == tree.id)
    return [_hold(row) for row in tx.rows(query.order_by(holds.c.id))]


def of_run(tx: Transaction, run_id: str) -> list[Hold]:
    """List a run's holds of calls in flight, without steps in a batch: these survive the death of a worker."""
    query = sa.select(holds).where(holds.c.run_id == run_id, ~_IN_BATCH)
    return [_hold(row) for row in tx.rows(query.order_by(holds.c.id))]


def of_batch_item(tx: Transaction, run_id: str, step: int) -> Hold | None:
    """Find the hold of a step that waits for a batch or is in one."""
    row = tx.row(sa.select(holds).where(holds.c.run_id == run_id, holds.c.step == step, _IN_BATCH))
    return None if row is None else _hold(row)


def orphaned_before(before: Any) -> sa.ColumnElement[bool]:
    """Condition for holds from before a time in ms whose attempt does not execute the run any more."""
    running = sa.exists().where(
        runs.c.id == holds.c.run_id,
        runs.c.attempt == holds.c.attempt,
        runs.c.status == RunStatus.RUNNING,
        runs.c.finished_at.is_(None),
    )
    return sa.and_(holds.c.called_at < before, ~running, ~_IN_BATCH)


def orphaned(tx: Transaction, before: int, limit: int) -> list[Hold]:
    """List orphaned holds from before `before` (ms), oldest first."""
    query = sa.select(holds).where(orphaned_before(before)).order_by(holds.c.called_at)
    return [_hold(row) for row in tx.rows(query.limit(limit))]


def oldest(tx: Transaction, scope: str) -> int | None:
    """Time (ms) of a scope's oldest open hold; None: it has none."""
    row = tx.row(sa.select(sa.func.min(holds.c.called_at).label("at")).where(*of_scope(holds, scope)))
    return None if row is None else row["at"]


def adopt(tx: Transaction, scope: str, since: int, counter: str) -> int:
    """Add a new counter to the open holds of a scope; return their sum in nano-dollars.

    The caller has the scope's exclusive lock: no transaction that waits for it has one of these rows locked.
    """
    query = sa.select(holds).where(holds.c.called_at >= since, *of_scope(holds, scope))
    found = [_hold(row) for row in tx.rows(query.order_by(holds.c.id).with_for_update())]
    for hold in found:
        tx.execute(_ADOPT, {"of_run": hold.run_id, "of": hold.id, "listed": [*hold.counters, counter]})
    return sum(hold.amount_nano for hold in found)


def every(tx: Transaction) -> list[Hold]:
    return [_hold(row) for row in tx.rows(sa.select(holds).order_by(holds.c.id))]


def of_scope(table: sa.Table, scope: str) -> list[sa.ColumnElement[bool]]:
    """Condition for rows of `table` in this scope."""
    if (end_user := cap_scopes.end_user_of(scope)) is not None:
        return [table.c.key_id == end_user[0], table.c.end_user == end_user[1]]
    kind, _, name = scope.partition(":")
    if kind == "workspace":
        return in_workspace(table, name)
    return [] if kind == "service" else [table.c[COLUMN_OF[kind]] == name]


def _hold(row: Row) -> Hold:
    values: dict[str, Any] = {**row, "counters": tuple(row["counters"])}
    return Hold(**values)
