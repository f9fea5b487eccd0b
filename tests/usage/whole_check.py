"""The whole check: all the books at once, in one snapshot and in memory. `service.usage.ledger` must find the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import sqlalchemy as sa

from service.errors import PriceUnknown
from service.store import holds, ledger
from service.store.budgets import CounterEntry
from service.store.database import Database, Row, Transaction
from service.store.holds import Hold
from service.store.ledger import HELD, TREE, UPSTREAM
from service.store.schema import counters as counter_rows
from service.store.schema import ledger as ledger_rows
from service.types import Usage
from service.usage.ledger import Checked, Fault
from service.usage.prices import PriceTable

ACCOUNTS = {"hold": 2, "settle": 3, "release": 2}
DEALS = ("open", "cap", "share")


class _Link(NamedTuple):
    """Effect of one entry on one counter."""

    after: CounterEntry
    kind: str
    row: str
    spent: int = 0
    held: int = 0


def check(db: Database, prices: PriceTable) -> Checked:
    """Go over all the books, in one snapshot of them."""
    with db.read() as tx:
        tx.use_one_snapshot()
        return _Check(prices).run(tx)


class _Check:
    def __init__(self, prices: PriceTable) -> None:
        self._prices = prices
        self._chains: dict[str, list[_Link]] = defaultdict(list)
        self._deals: dict[str, list[tuple[int, Row]]] = defaultdict(list)
        self._open: dict[str, Row] = {}  # the held row of each hold that is not settled
        self._trees: dict[str, int] = defaultdict(int)  # left in each tree
        self._totals = {HELD: 0, UPSTREAM: 0}
        self.faults: list[Fault] = []

    def run(self, tx: Transaction) -> Checked:
        count = 0
        for entry in _rows(tx):
            self._entry(entry)
            count += 1
        counters = {row["id"]: row for row in tx.rows(sa.select(counter_rows))}
        self._holds(holds.every(tx))
        for name in sorted(self._chains.keys() | counters.keys()):
            self._chain(name, sorted(self._chains.get(name, ())), counters.get(name))
        for deals in self._deals.values():
            self._shares([row for _, row in sorted(deals, key=lambda deal: deal[0])])
        return Checked(count, len(counters), self._totals[UPSTREAM], self._totals[HELD], self.faults)

    def _entry(self, rows: Sequence[Row]) -> None:
        name, kind = _name(rows[0]), rows[0]["kind"]
        if kind in DEALS:
            self._deal(rows[0])
        by_account = {row["account"].partition(":")[0]: row for row in rows}
        if kind not in DEALS and (len(rows) != ACCOUNTS.get(kind) or not {HELD, TREE} & by_account.keys()):
            self._fault(name, "a row of this entry is missing, or one too many")
            return
        if sum(row["amount_nano"] for row in rows) != 0:
            self._fault(name, "its rows do not balance")
        for account in self._totals.keys() & by_account.keys():
            self._totals[account] += by_account[account]["amount_nano"]
        tree = by_account.get(TREE)
        if tree is not None:
            self._trees[tree["account"]] += tree["amount_nano"]
            self._totals[HELD] += tree["amount_nano"]
        if kind == "hold":
            held = by_account[HELD] if tree is None or HELD in by_account else tree
            self._open[rows[0]["entry_id"]] = held
            self._link(held, held=held["amount_nano"])
        elif kind == "settle":
            self._settlement(
                by_account[HELD], by_account[UPSTREAM], 0 if tree is None else tree["amount_nano"]
            )
        elif kind == "release" and tree is not None:
            self._link(tree, held=tree["amount_nano"])
            if self._open.pop(tree["entry_id"], None) is None:
                self._fault(_name(tree), "it settles a hold that is not in the ledger")

    def _settlement(self, held: Row, upstream: Row, back: int) -> None:
        """Settle a hold; `back`: what its tree gets back, which stays held."""
        name, cost = _name(held), upstream["amount_nano"]
        self._link(held, held=held["amount_nano"] + back, spent=cost)
        hold = self._open.pop(held["entry_id"], None)
        if hold is None:
            self._fault(name, "it settles a hold that is not in the ledger")
        elif hold["amount_nano"] != -held["amount_nano"]:
            self._fault(name, f"it settles {-held['amount_nano']}, but {hold['amount_nano']} was held")
        if (due := self._due(upstream, -held["amount_nano"])) != cost:
            self._fault(name, f"it books {cost} for what costs {due}")

    def _due(self, row: Row, held: int) -> int | None:
        """Compute a call's cost from its tokens and its price row."""
        if row["basis"] in ("worst", "nothing"):
            return held if row["basis"] == "worst" else 0
        usage = Usage(*(row[column] for column in ledger.TOKENS))
        try:
            return self._prices.by_id(row["price_id"]).cost(usage)
        except (PriceUnknown, ValueError):
            return None

    def _deal(self, row: Row) -> None:
        for after in _entries(row):
            self._chains[after.counter].append(_Link(after, row["kind"], _name(row)))
        self._deals[row["account"]].append((min((after.seq for after in _entries(row)), default=0), row))

    def _link(self, row: Row, *, held: int, spent: int = 0) -> None:
        for after in _entries(row):
            self._chains[after.counter].append(_Link(after, row["kind"], _name(row), spent, held))

    def _holds(self, found: Sequence[Hold]) -> None:
        for hold in found:
            entry = self._open.pop(hold.id, None)
            if entry is None:
                self._fault(f"holds {hold.id}", "no open entry of the ledger stands for it")
            elif hold.amount_nano != (
                self._trees.pop(f"tree:{hold.id}", 0) if hold.is_tree else entry["amount_nano"]
            ):
                self._fault(
                    f"holds {hold.id}", f"it holds {hold.amount_nano}, the ledger {entry['amount_nano']}"
                )
        for entry in self._open.values():
            self._fault(_name(entry), "it is neither settled nor open")
        for account, left in self._trees.items():
            if left:
                self._fault(account, f"{left} nano-dollars are left in it after its end")

    def _chain(self, counter: str, links: Sequence[_Link], row: Row | None) -> None:
        """Follow one counter from its opening to what it says now."""
        before = CounterEntry(counter, 0, 0, 0, 0)
        for link in links:
            for what in _wrong(before, link):
                self._fault(link.row, f"counter {counter}: {what}")
            before = link.after
        now = None if row is None else CounterEntry(counter, *(row[column] for column in _COLUMNS))
        if now != before:
            self._fault(f"counters {counter}", f"it says {_said(now)}, its entries {_said(before)}")

    def _shares(self, deals: Sequence[Row]) -> None:
        """Its stripes share a cap: never more than the cap, and only changing it changes the sum."""
        for before, row in zip((None, *deals), deals, strict=False):
            if sum(after.cap for after in _entries(row)) != row["cap_nano"]:
                self._fault(_name(row), "the stripes' shares are not the cap")
            if row["kind"] == "share" and (before is None or before["cap_nano"] != row["cap_nano"]):
                self._fault(_name(row), "the cap changed where it was only dealt out anew")

    def _fault(self, row: str, what: str) -> None:
        self.faults.append(Fault(row, what))


_COLUMNS = ("seq", "spent_nano", "held_nano", "cap_nano")


def _wrong(before: CounterEntry, link: _Link) -> Iterator[str]:
    after, opening = link.after, link.kind == "open"
    if after.seq != before.seq + 1:
        yield f"entry {after.seq} follows entry {before.seq}"
    if opening != (before.seq == 0):
        yield "it is opened twice" if opening else "it was never opened"
    elif not opening and (after.spent, after.held) != (before.spent + link.spent, before.held + link.held):
        yield f"it was left at {_said(after)}, which does not follow from {_said(before)}"
    if link.kind not in DEALS and after.cap != before.cap:
        yield f"its cap became {after.cap} from {before.cap}"
    if link.spent + link.held > 0 and after.spent + after.held > after.cap:
        yield f"{after.spent} spent and {after.held} held pass the cap of {after.cap}"


def _entries(row: Row) -> list[CounterEntry]:
    return [CounterEntry(*entry) for entry in row["counters"] or ()]


def _name(row: Row) -> str:
    return f"ledger {row['entry_id']} {row['kind']}"


def _said(entry: CounterEntry | None) -> str:
    return (
        "nothing"
        if entry is None
        else f"{entry.spent} spent, {entry.held} held of {entry.cap} (entry {entry.seq})"
    )


def _rows(tx: Transaction) -> Iterator[list[Row]]:
    key = (ledger_rows.c.entry_id, ledger_rows.c.kind, ledger_rows.c.account)
    found = tx.rows(sa.select(ledger_rows).order_by(*key))
    for _, rows in groupby(found, lambda row: (row["entry_id"], row["kind"])):
        yield list(rows)
