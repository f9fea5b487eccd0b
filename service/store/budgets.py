"""Counters of budget caps. The caps themselves: see `service.store.caps`.

Lock order: a transaction locks counters by id, in one statement; a later statement may lock no others, see `may_lock`.

A window is one cap in one day, one month, or in all, with one counter, or several stripes that share the cap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from hashlib import blake2b
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store import cap_scopes
from service.store.database import InsertOnce, Row, Transaction, clock_ms
from service.store.schema import counters
from service.store.statement import Statement, binds, listed

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


_COUNTERS = Statement(
    sa.select(counters)
    .where(counters.c.id > sa.bindparam("after"))
    .order_by(counters.c.id)
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
_COMMITTED = counters.c.spent_nano + counters.c.held_nano
STATE = ("id", "seq", "spent_nano", "held_nano", "cap_nano")  # columns, in the order of `CounterEntry`
_STATE = [counters.c[name] for name in STATE]


def _locked_ids(count: int) -> sa.Select[Any]:
    ids = sa.select(counters.c.id).where(counters.c.id.in_(binds("id", count)))
    return ids.order_by(counters.c.id).with_for_update()


def taking(count: int) -> sa.Update:
    """Update that holds `amount` against `id0` to `id{count-1}`, each where it fits; returns their `STATE`.

    Nothing fits a counter whose cap has to be looked up again.
    """
    fits = _COMMITTED + sa.bindparam("amount", type_=sa.BigInteger()) <= counters.c.cap_nano
    holds_good = sa.or_(counters.c.cap_until.is_(None), counters.c.cap_until > clock_ms())
    statement = sa.update(counters).where(counters.c.id.in_(_locked_ids(count)), fits, holds_good)
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
_STALE = sa.and_(counters.c.cap_until.is_not(None), counters.c.cap_until <= clock_ms())
_STRIPES = (
    sa.select(counters, _STALE.label("stale"))
    .where(counters.c.window_id.in_(sa.bindparam("windows", expanding=True)))
    .order_by(counters.c.id)
)
_STRIPES_LOCKED = _STRIPES.with_for_update()
_OPEN = InsertOnce(counters)
_SHARE = (
    sa.update(counters)
    .where(counters.c.id == sa.bindparam("of"))
    .values(cap_nano=sa.bindparam("share"), cap_until=sa.bindparam("until"), seq=counters.c.seq + 1)
)


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
    """Read the counters of each open window, by window id; `stale`: the cap has to be looked up again."""
    found: dict[str, list[Row]] = {}
    ids = [window.id for window in windows]
    for row in tx.rows(_STRIPES_LOCKED if lock else _STRIPES, {"windows": ids}) if ids else []:
        found.setdefault(row["window_id"], []).append(row)
    return found


def insert(
    tx: Transaction, window: BudgetWindow, shares: Sequence[int], until: int | None, spent: int, held: int
) -> list[CounterEntry]:
    """Open a window: a counter for each share, the first with `spent` and `held`. Empty: it is open already.

    `until`: end of the cap (ms).
    """
    opened = [
        CounterEntry(window.counter(stripe), 1, 0 if stripe else spent, 0 if stripe else held, share)
        for stripe, share in enumerate(shares)
    ]
    end_user = cap_scopes.end_user_of(window.scope)
    common = {
        "window_id": window.id,
        "scope": window.scope,
        "period": window.period,
        "starts_at": window.start,
        "cap_until": until,
        "key_id": None if end_user is None else end_user[0],
    }
    for entry in opened:  # the transaction that inserts the first inserts all: others wait for it
        row = {"id": entry.counter, "seq": 1, "spent_nano": entry.spent, "held_nano": entry.held, "warned": 0}
        if tx.execute(_OPEN, {**common, **row, "cap_nano": entry.cap}) == 0:
            return []
    return opened


def share(
    tx: Transaction, rows: Sequence[Row], shares: Sequence[int], until: int | None
) -> list[CounterEntry]:
    """Set the share of the cap of each of a window's counters, which must be locked. `until`: end of the cap (ms)."""
    for row, cap in zip(rows, shares, strict=True):
        tx.execute(_SHARE, {"of": row["id"], "share": cap, "until": until})
    return [
        CounterEntry(row["id"], row["seq"] + 1, row["spent_nano"], row["held_nano"], cap)
        for row, cap in zip(rows, shares, strict=True)
    ]


def make_stale(tx: Transaction, key_id: str, period: str) -> None:
    """Have the caps of all open windows of a key's end users looked up again: their default has changed."""
    of_key = sa.select(counters.c.id).where(counters.c.key_id == key_id, counters.c.period == period)
    locked_ids = of_key.order_by(counters.c.id).with_for_update()
    tx.execute(sa.update(counters).where(counters.c.id.in_(locked_ids)).values(cap_until=0))


def count_of_key(tx: Transaction, key_id: str, window: BudgetWindow, most: int) -> int:
    """Count the end users of a key that have a counter in the period and start of `window`; stop at `most`."""
    place = (counters.c.period == window.period, counters.c.starts_at == window.start)
    found = sa.select(sa.literal(1)).where(counters.c.key_id == key_id, *place).limit(most).subquery()
    row = tx.row(sa.select(sa.func.count().label("n")).select_from(found))
    return 0 if row is None else int(row["n"])


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
