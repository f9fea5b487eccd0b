"""Rows of the ledger: only ever added. The rows of an entry sum to zero.

hold     user:…  −most             held +most
settle   held    −most             upstream +cost        user:…  +(most − cost)
open, cap, share   a cap's window is opened, changed, or dealt out anew to its stripes: no money moves

Whose call it is, of which run, with which model and price: the `held` row of a hold and the `upstream` row of a
settlement say it for their entries; in those that older versions wrote every row does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from service.store.budgets import BudgetWindow, CounterEntry
from service.store.database import Transaction
from service.store.holds import Hold, of_scope
from service.store.schema import ledger
from service.store.statement import Statement
from service.types import Usage, new_id, now_ms

HELD, UPSTREAM = "held", "upstream"
TOKENS = (  # in the order of `Usage`
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "cache_creation_1h_tokens",
    "server_tool_requests",
)
_EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in ledger.columns)
_INSERT = Statement(sa.insert(ledger))
# As a literal: the indexes are of these rows alone, and a value that is told later does not promise that.
IS_CALL = ledger.c.account == sa.literal_column(f"'{UPSTREAM}'")


def held(tx: Transaction, hold: Hold, counters: Sequence[CounterEntry]) -> None:
    """The entry of a hold."""
    entry = {**_EMPTY, **_key(hold, "hold")}
    most = {**entry, **_about(hold), "account": HELD, "amount_nano": hold.amount_nano}
    tx.execute(
        _INSERT,
        [
            {**entry, "account": f"user:{hold.user_id}", "amount_nano": -hold.amount_nano},
            {**most, "counters": _plain(counters)},
        ],
    )


def settled(
    tx: Transaction,
    hold: Hold,
    counters: Sequence[CounterEntry],
    *,
    usage: Usage,
    cost: int,
    saved: int,
    basis: str,
) -> None:
    """The entry of a settlement."""
    entry = {**_EMPTY, **_key(hold, "settle"), "basis": basis}
    tokens = {**dict(zip(TOKENS, usage, strict=True)), "saved_nano": saved}
    tx.execute(
        _INSERT,
        [
            {**entry, "account": HELD, "amount_nano": -hold.amount_nano, "counters": _plain(counters)},
            {**entry, **_about(hold), **tokens, "account": UPSTREAM, "amount_nano": cost},
            {**entry, "account": f"user:{hold.user_id}", "amount_nano": hold.amount_nano - cost},
        ],
    )


def shared(
    tx: Transaction, kind: str, window: BudgetWindow, cap: int, counters: Sequence[CounterEntry]
) -> None:
    """The entry of a window that was opened (`open`), whose cap was changed (`cap`), or dealt out anew (`share`)."""
    now = now_ms()
    about = {"entry_id": new_id("cap"), "kind": kind, "account": window.id, "amount_nano": 0, "at": now}
    tx.execute(
        _INSERT, [{**_EMPTY, **about, "called_at": now, "cap_nano": cap, "counters": _plain(counters)}]
    )


def spent(tx: Transaction, scope: str, since: int, until: int | None = None) -> int:
    """Nano-dollars settled for calls of a scope that were made from `since` (ms) on, and before `until`."""
    total = sa.func.coalesce(sa.func.sum(ledger.c.amount_nano), 0).label("total")
    mine = (IS_CALL, ledger.c.called_at >= since, *of_scope(ledger, scope))
    query = sa.select(total).where(*mine)
    row = tx.row(query if until is None else query.where(ledger.c.called_at < until))
    return int(row["total"]) if row else 0


def count(tx: Transaction, since: int, until: int) -> int:
    """How many settled calls were made at `since` <= t < `until` (ms)."""
    calls = sa.select(sa.func.count().label("calls"))
    row = tx.row(calls.where(IS_CALL, ledger.c.called_at >= since, ledger.c.called_at < until))
    return int(row["calls"]) if row else 0


class _OneSnapshot(sa.Executable, sa.ClauseElement):
    """Let every statement of this transaction see the same moment. SQLite does so by itself."""

    inherit_cache = True


@compiles(_OneSnapshot, "sqlite")
def _sqlite_snapshot(element: Any, compiler: Any, **kw: Any) -> str:
    return "SELECT 1"


@compiles(_OneSnapshot, "postgresql")
def _postgres_snapshot(element: Any, compiler: Any, **kw: Any) -> str:
    return "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"


def one_snapshot(tx: Transaction) -> None:
    """The first statement of a transaction that compares tables with each other while others write."""
    tx.execute(_OneSnapshot())


def _plain(counters: Sequence[CounterEntry]) -> list[list[Any]]:
    return [list(entry) for entry in counters]


def _key(hold: Hold, kind: str) -> dict[str, Any]:
    """What every row of an entry says."""
    return {"entry_id": hold.id, "kind": kind, "at": now_ms(), "called_at": hold.called_at}


def _about(hold: Hold) -> dict[str, Any]:
    """What one row of an entry says for all of them."""
    return {
        "user_id": hold.user_id,
        "key_id": hold.key_id,
        "agent": hold.agent,
        "session_id": hold.session_id,
        "run_id": hold.run_id,
        "step": hold.step,
        "model": hold.model,
        "price_id": hold.price_id,
    }
