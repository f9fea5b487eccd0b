"""Bookings: a change of counters and the ledger's entry of it, which records the state it left them in.

PostgreSQL does both in one statement, the last before COMMIT: so the counters' rows are locked for the commit alone,
however long the client takes. SQLite has no such statement and no other writer.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import sqlalchemy as sa

from service.store import budgets, ledger
from service.store.database import Row, Transaction
from service.store.holds import Hold
from service.store.ledger import SettledCall
from service.store.pipeline import ONE_OR_FAILS
from service.store.schema import ledger as entries
from service.store.statement import Statement, listed

Changed = Callable[[list[Row]], object]


def hold(tx: Transaction, held: Hold) -> bool:
    """Hold money against each of the hold's counters, and append its entry. False: some have no room for it."""
    tx.locked_counters.update(held.counters)
    other, main = ledger.rows_of_hold(held)
    if not tx.pipelined:
        taken = budgets.take(tx, held.counters, held.amount_nano)
        if len(taken) < len(held.counters):
            return False
        tx.send(ledger.INSERT, other, {**main, "counters": ledger.states(taken)})
        return True
    tx.send(ledger.INSERT, other)
    if held.counters:
        tx.send(_taken(len(held.counters)), _values(held, main) | {"amount": held.amount_nano})
    else:
        tx.send(ledger.INSERT, {**main, "counters": []})
    return True


def take_from_tree(tx: Transaction, held: Hold) -> None:
    """Append the entry of a hold that was taken from its tree's: the counters hold it already."""
    other, main = ledger.rows_of_hold(held)
    tx.send(ledger.INSERT, other, {**main, "counters": []})


def settle(
    tx: Transaction, held: Hold, call: SettledCall, changed: Changed, *, to_tree: bool = False
) -> None:
    """Replace what a closed hold holds by the call's cost, and append the entry.

    `changed` receives the counters' rows, with `warned`, once the commit has succeeded. `to_tree`: the rest stays held,
    for the tree.
    """
    rows = ledger.rows_of_settlement(held, call, to_tree)
    _replace(tx, held, rows, call.cost if to_tree else held.amount_nano, call.cost, changed)


def release(tx: Transaction, tree: Hold, changed: Changed) -> None:
    """Release what is left of a tree's closed hold, and append the entry."""
    _replace(tx, tree, ledger.rows_of_release(tree), tree.amount_nano, 0, changed)


def _replace(
    tx: Transaction, held: Hold, entry: list[dict[str, Any]], amount: int, cost: int, changed: Changed
) -> None:
    """Replace a held amount by its cost on a hold's counters, and append the entry."""
    *others, main = entry
    tx.locked_counters.update(held.counters)
    if not tx.pipelined:
        rows = budgets.settle(tx, held.counters, amount, cost)
        states = ledger.states([budgets.entry_of(row) for row in rows])
        tx.send(ledger.INSERT, *others, {**main, "counters": states})
        tx.after_commit(lambda: changed(rows))
        return
    tx.send(ledger.INSERT, *others)
    if held.counters:
        amounts = {"amount": amount, "cost": cost}
        tx.rows_after_commit(_settled(len(held.counters)), _values(held, main) | amounts, changed)
    else:
        tx.send(ledger.INSERT, {**main, "counters": []})


@cache
def _taken(count: int) -> Statement:
    """Take from `count` counters, or fail, and append the row of the entry that records them."""
    return Statement(_entry_of(budgets.taking(count).cte("changed"), count))


@cache
def _settled(count: int) -> Statement:
    """Settle on `count` counters, append the row of the entry that records them, and return their rows."""
    changed = budgets.settling(count).cte("changed")
    entry = _entry_of(changed, count).returning(entries.c.entry_id).cte("entry")
    return Statement(sa.select(changed).add_cte(entry))


def _entry_of(changed: sa.CTE, count: int) -> sa.Insert:
    state = sa.func.json_build_array(*(changed.c[name] for name in budgets.STATE))
    all_of_them = sa.literal_column(f"{ONE_OR_FAILS.format(f'count(*) = {count}')} = 1", sa.Boolean())
    states = sa.case((all_of_them, sa.func.json_agg(state)))
    columns = [column for column in entries.c if column.key != "counters"]
    values = [sa.bindparam(f"entry_{column.key}", type_=column.type) for column in columns]
    return sa.insert(entries).from_select(
        [*columns, entries.c.counters], sa.select(*values, states).select_from(changed)
    )


def _values(held: Hold, row: dict[str, Any]) -> dict[str, Any]:
    given = {f"entry_{name}": value for name, value in row.items() if name != "counters"}
    return given | listed("id", held.counters)
