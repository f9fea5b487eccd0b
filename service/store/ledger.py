"""Ledger of model calls: append-only double entry, the rows of an entry sum to zero.

hold     user:…  −most             held +most
settle   held    −most             upstream +cost        user:…  +(most − cost)

The hold of a tree of sub-agents moves money to an account of the tree, which pays for the calls in it, and gets back
what they do not cost. A call that is settled after its tree has ended gives it back to the user:

hold     user:…  −most             tree:…   +most        of the tree
hold     tree:…  −most             held     +most        of a call in it
settle   held    −most             upstream +cost        tree:…  +(most − cost)
release  tree:…  −left             user:…   +left        of the tree

open, cap, share   a cap's window is opened, changed, or rebalanced over its stripes: no money moves

Caller, run, model and price of a call are in one row of its entry: the `held` row of a hold, the `upstream` row of a
settlement; older versions wrote them in every row.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import sqlalchemy as sa

from service.ids import new_id
from service.store.budgets import BudgetWindow, CounterEntry
from service.store.database import Transaction
from service.store.holds import Hold, of_scope
from service.store.schema import ledger
from service.store.statement import Statement
from service.types import Usage, now_ms

HELD, UPSTREAM, TREE = "held", "upstream", "tree"
TOKENS = (  # in the order of `Usage`
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_creation_tokens",
    "cache_creation_1h_tokens",
    "server_tool_requests",
)
_EMPTY: dict[str, Any] = dict.fromkeys(column.name for column in ledger.columns)
INSERT = Statement(sa.insert(ledger))
# A literal, not a bound value: only then does the planner use the partial indexes on these rows.
IS_CALL = ledger.c.account == sa.literal_column(f"'{UPSTREAM}'")


class SettledCall(NamedTuple):
    """Result of a model call: its usage, nano-dollars it cost and the cache saved, and the basis of that figure.

    `batch_saved`: nano-dollars that the Batches API saved, of what the call would have cost without the cache; so cost
    and savings sum to the price of the same call without either.
    """

    usage: Usage
    cost: int
    saved: int
    basis: str
    batch_saved: int = 0


def rows_of_hold(hold: Hold) -> list[dict[str, Any]]:
    """Return the rows of a hold's entry; the last one is to record the counters."""
    entry = {**_EMPTY, **_key(hold, "hold")}
    payer = _tree(hold) if hold.in_tree else f"user:{hold.user_id}"
    account = _tree(hold) if hold.is_tree else HELD
    return [
        {**entry, "account": payer, "amount_nano": -hold.amount_nano},
        {**entry, **_about(hold), "account": account, "amount_nano": hold.amount_nano},
    ]


def rows_of_settlement(hold: Hold, call: SettledCall, to_tree: bool) -> list[dict[str, Any]]:
    """Return the rows of a settlement's entry; the last one is to record the counters.

    `to_tree`: the tree that the hold was taken from gets the rest.
    """
    cost = call.cost
    entry = {**_EMPTY, **_key(hold, "settle"), "basis": call.basis}
    tokens = {**dict(zip(TOKENS, call.usage, strict=True)), "saved_nano": call.saved}
    tokens["batch_saved_nano"] = call.batch_saved
    return [
        {**entry, **_about(hold), **tokens, "account": UPSTREAM, "amount_nano": cost},
        {
            **entry,
            "account": _tree(hold) if to_tree else f"user:{hold.user_id}",
            "amount_nano": hold.amount_nano - cost,
        },
        {**entry, "account": HELD, "amount_nano": -hold.amount_nano},
    ]


def rows_of_release(tree: Hold) -> list[dict[str, Any]]:
    """Return the rows of the entry that ends a tree; the last one is to record the counters."""
    entry = {**_EMPTY, **_key(tree, "release")}
    return [
        {**entry, "account": f"user:{tree.user_id}", "amount_nano": tree.amount_nano},
        {**entry, **_about(tree), "account": _tree(tree), "amount_nano": -tree.amount_nano},
    ]


def shared(
    tx: Transaction, kind: str, window: BudgetWindow, cap: int, counters: Sequence[CounterEntry]
) -> None:
    """Append the entry of a window that was opened (`open`), changed (`cap`) or rebalanced (`share`)."""
    now = now_ms()
    about = {"entry_id": new_id("cap"), "kind": kind, "account": window.id, "amount_nano": 0, "at": now}
    tx.send(INSERT, {**_EMPTY, **about, "called_at": now, "cap_nano": cap, "counters": states(counters)})


def spent(tx: Transaction, scope: str, since: int, until: int | None = None) -> int:
    """Sum nano-dollars settled for calls of a scope made at `since` <= t < `until` (ms)."""
    total = sa.func.coalesce(sa.func.sum(ledger.c.amount_nano), 0).label("total")
    query = sa.select(total).where(IS_CALL, ledger.c.called_at >= since, *of_scope(ledger, scope))
    row = tx.row(query if until is None else query.where(ledger.c.called_at < until))
    return int(row["total"]) if row else 0


def count(tx: Transaction, since: int, until: int) -> int:
    """Count settled calls made at `since` <= t < `until` (ms)."""
    calls = sa.select(sa.func.count().label("calls"))
    row = tx.row(calls.where(IS_CALL, ledger.c.called_at >= since, ledger.c.called_at < until))
    return int(row["calls"]) if row else 0


def states(counters: Sequence[CounterEntry]) -> list[list[Any]]:
    """Return states of counters as an entry records them."""
    return [list(entry) for entry in counters]


def _tree(hold: Hold) -> str:
    return f"{TREE}:{hold.tree_id}"


def _key(hold: Hold, kind: str) -> dict[str, Any]:
    """Columns of every row of an entry."""
    return {"entry_id": hold.id, "kind": kind, "at": now_ms(), "called_at": hold.called_at}


def _about(hold: Hold) -> dict[str, Any]:
    """Columns of the one row that describes the call."""
    return {
        "user_id": hold.user_id,
        "key_id": hold.key_id,
        "agent": hold.agent,
        "session_id": hold.session_id,
        "run_id": hold.run_id,
        "step": hold.step,
        "model": hold.model,
        "price_id": hold.price_id,
        "end_user": hold.end_user,
    }
