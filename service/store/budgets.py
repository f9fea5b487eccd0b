"""Budget caps and their counters.

Lock order: a transaction locks counters by id, in one statement; a later statement may lock no others, see `may_lock`.

A window is one cap in one day, one month, or in all, with one counter, or several stripes that share the cap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import api_keys, caps, counters, sessions, users, workspaces
from service.store.statement import Statement, binds, listed
from service.store.users import DELETED
from service.store.visibility import in_workspace
from service.store.workspaces import deleted_name
from service.types import now_ms

MASK = 2**63 - 1  # of a BIGINT


class BudgetWindow(NamedTuple):
    """Window of a cap that starts at `start` (ms; 0 for `total`)."""

    scope: str
    period: str
    start: int

    @property
    def id(self) -> str:
        return f"{self.scope}/{self.period}/{self.start}"

    def counter(self, stripe: int) -> str:
        return f"{self.id}/{stripe}"


class CounterEntry(NamedTuple):
    """State of a counter after a ledger entry; amounts in nano-dollars."""

    counter: str
    seq: int
    spent: int
    held: int
    cap: int

    @property
    def fingerprint(self) -> int:
        """63-bit hash of this state, stable across processes: `closed_windows` stores sums of it."""
        text = "|".join(map(str, self))
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") & MASK


_CAP = sa.select(caps).where(caps.c.scope == sa.bindparam("scope"), caps.c.period == sa.bindparam("period"))
_AFTER = (
    sa.select(caps)
    .where(
        caps.c.scope != "service",
        sa.tuple_(caps.c.scope, caps.c.period) > sa.tuple_(sa.bindparam("scope"), sa.bindparam("period")),
    )
    .order_by(caps.c.scope, caps.c.period)
)
_COUNTERS = Statement(
    sa.select(counters)
    .where(counters.c.id > sa.bindparam("after"))
    .order_by(counters.c.id)
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
_COMMITTED = counters.c.spent_nano + counters.c.held_nano
STATE = ("id", "seq", "spent_nano", "held_nano", "cap_nano")  # columns, in the order of `CounterEntry`
_STATE = [counters.c[name] for name in STATE]


@cache
def _caps(count: int) -> Statement:
    wanted = sa.select(caps).where(caps.c.scope.in_(binds("scope", count)))
    return Statement(wanted.order_by(caps.c.scope, caps.c.period))


def _locked_ids(count: int) -> sa.Select[Any]:
    ids = sa.select(counters.c.id).where(counters.c.id.in_(binds("id", count)))
    return ids.order_by(counters.c.id).with_for_update()


def taking(count: int) -> sa.Update:
    """Update that holds `amount` against `id0` to `id{count-1}`, each where it fits; returns their `STATE`."""
    fits = _COMMITTED + sa.bindparam("amount", type_=sa.BigInteger()) <= counters.c.cap_nano
    statement = sa.update(counters).where(counters.c.id.in_(_locked_ids(count)), fits)
    held = counters.c.held_nano + sa.bindparam("amount", type_=sa.BigInteger())
    return statement.values(held_nano=held, seq=counters.c.seq + 1).returning(*_STATE)


def settling(count: int) -> sa.Update:
    """Update that replaces a held `amount` by its `cost`; returns `STATE`, `warned` and `window_id`."""
    statement = sa.update(counters).where(counters.c.id.in_(_locked_ids(count)))
    values = {
        "held_nano": counters.c.held_nano - sa.bindparam("amount", type_=sa.BigInteger()),
        "spent_nano": counters.c.spent_nano + sa.bindparam("cost", type_=sa.BigInteger()),
        "seq": counters.c.seq + 1,
    }
    return statement.values(values).returning(*_STATE, counters.c.warned, counters.c.window_id)


_take = cache(lambda count: Statement(taking(count)))
_settle = cache(lambda count: Statement(settling(count)))
_STRIPES = (
    sa.select(counters)
    .where(counters.c.window_id.in_(sa.bindparam("windows", expanding=True)))
    .order_by(counters.c.id)
)
_STRIPES_LOCKED = _STRIPES.with_for_update()
_OPEN = InsertOnce(counters)
_SHARE = (
    sa.update(counters)
    .where(counters.c.id == sa.bindparam("of"))
    .values(cap_nano=sa.bindparam("share"), seq=counters.c.seq + 1)
)


def workspace_of(tx: Transaction, kind: str, name: str) -> str | None:
    """Find the workspace of the workspace, user, key or session of this id. None: there is no such subject."""
    of_key = sa.select(api_keys.c.id, users.c.workspace_id).join(users, users.c.id == api_keys.c.user_id)
    query = {
        "workspace": sa.select(workspaces.c.id, workspaces.c.id.label("workspace_id")).where(
            workspaces.c.name != deleted_name(name)
        ),
        "user": sa.select(users.c.id, users.c.workspace_id).where(users.c.role != DELETED),
        "key": of_key.where(api_keys.c.revoked_at.is_(None)),
        "session": sa.select(sessions.c.id, sessions.c.workspace_id).where(sessions.c.expires_at > now_ms()),
    }[kind]
    row = tx.row(query.where(query.selected_columns.id == name))
    return None if row is None else str(row["workspace_id"])


def read(tx: Transaction, scopes: Sequence[str], expect: Sequence[Row] | None = None) -> list[Row]:
    """Read the caps of these scopes, in order of scopes and periods. `expect`: these caps, see `Transaction`."""
    return tx.rows(_caps(len(scopes)), listed("scope", scopes), expect=expect)


def after(tx: Transaction, scope: str, period: str, limit: int, workspace_id: str | None) -> list[Row]:
    """Page of caps, or of a workspace's, after this one, in the database's order of scopes, then periods.

    Without the service's.
    """
    query = _AFTER.where(*in_workspace(caps, workspace_id)).limit(limit)
    return tx.rows(query, {"scope": scope, "period": period})


def locked(tx: Transaction, scope: str, period: str) -> Row | None:
    """Read one cap and keep it from changing until this transaction ends."""
    return tx.row(_CAP.with_for_update(read=True), {"scope": scope, "period": period})


def put(tx: Transaction, scope: str, period: str, amount: int | None, workspace_id: str | None) -> None:
    """Set a cap. `workspace_id`: of its subject; None: the subject is gone, or belongs to none."""
    values: dict[str, Any] = {"amount_nano": amount, "updated_at": now_ms()}
    values |= {} if workspace_id is None else {"workspace_id": workspace_id}
    key = sa.and_(caps.c.scope == scope, caps.c.period == period)
    if tx.execute(sa.update(caps).where(key).values(values)) == 0:
        tx.execute(InsertOnce(caps), {"scope": scope, "period": period, **values})


def may_lock(tx: Transaction, ids: Sequence[str]) -> bool:
    """Return whether a transaction may lock these counters: it has locked none yet, or all of them.

    Otherwise it would wait for some while holding others, out of lock order.
    """
    return not tx.locked_counters or tx.locked_counters.issuperset(ids)


def take(tx: Transaction, ids: Sequence[str], amount: int) -> list[CounterEntry]:
    """Hold `amount` against each counter where it fits; return the counters that took it."""
    given = {**listed("id", ids), "amount": amount}
    return [entry_of(row) for row in tx.rows(_take(len(ids)), given)] if ids else []


def settle(tx: Transaction, ids: Sequence[str], amount: int, cost: int) -> list[Row]:
    """Replace a held `amount` by its `cost`; return the counters' rows, with `warned`."""
    given = {**listed("id", ids), "amount": amount, "cost": cost}
    return tx.rows(_settle(len(ids)), given) if ids else []


def stripes(tx: Transaction, windows: Iterable[BudgetWindow], *, lock: bool = False) -> dict[str, list[Row]]:
    """Read the counters of each open window, by window id."""
    found: dict[str, list[Row]] = {}
    ids = [window.id for window in windows]
    for row in tx.rows(_STRIPES_LOCKED if lock else _STRIPES, {"windows": ids}) if ids else []:
        found.setdefault(row["window_id"], []).append(row)
    return found


def insert(
    tx: Transaction, window: BudgetWindow, shares: Sequence[int], spent: int, held: int
) -> list[CounterEntry]:
    """Open a window: a counter for each share, the first with `spent` and `held`. Empty: it is open already."""
    opened = [
        CounterEntry(window.counter(stripe), 1, 0 if stripe else spent, 0 if stripe else held, share)
        for stripe, share in enumerate(shares)
    ]
    common = {
        "window_id": window.id,
        "scope": window.scope,
        "period": window.period,
        "starts_at": window.start,
    }
    for entry in opened:  # the transaction that inserts the first inserts all: others wait for it
        row = {"id": entry.counter, "seq": 1, "spent_nano": entry.spent, "held_nano": entry.held, "warned": 0}
        if tx.execute(_OPEN, {**common, **row, "cap_nano": entry.cap}) == 0:
            return []
    return opened


def share(tx: Transaction, rows: Sequence[Row], shares: Sequence[int]) -> list[CounterEntry]:
    """Set the share of the cap of each of a window's counters, which must be locked."""
    for row, cap in zip(rows, shares, strict=True):
        tx.execute(_SHARE, {"of": row["id"], "share": cap})
    return [
        CounterEntry(row["id"], row["seq"] + 1, row["spent_nano"], row["held_nano"], cap)
        for row, cap in zip(rows, shares, strict=True)
    ]


def warn(tx: Transaction, window_id: str, percent: int) -> bool:
    """Record the warning at `percent`. False: it was recorded before."""
    locked_ids = (
        sa.select(counters.c.id)
        .where(counters.c.window_id == window_id)
        .order_by(counters.c.id)
        .with_for_update()
    )
    statement = sa.update(counters).where(counters.c.id.in_(locked_ids), counters.c.warned < percent)
    return tx.execute(statement.values(warned=percent)) > 0


def every_counter(tx: Transaction, page: int = 5_000) -> Iterator[Row]:
    """Yield all counters in order of ids, read in pages."""
    after = ""
    while rows := tx.rows(_COUNTERS, {"after": after, "most": page}):
        yield from rows
        after = rows[-1]["id"]


def counters_of(tx: Transaction, ids: Sequence[str]) -> list[Row]:
    """Read the counters of these ids, as far as they exist."""
    return tx.rows(sa.select(counters).where(counters.c.id.in_(ids)))


def entry_of(row: Row) -> CounterEntry:
    """State of a counter from its row."""
    return CounterEntry(row["id"], row["seq"], row["spent_nano"], row["held_nano"], row["cap_nano"])
