"""Ledger verification: every counter is the sum of its entries, and no cap was ever passed.

Each entry records the state in which it left its counters, and each counter numbers its entries without a gap. So a
counter's history can be replayed entry by entry, and a changed, lost or inserted row is detected.

The ledger is read once, in many short transactions; memory is bounded by the number of open windows, not of rows: see
`chains`. Only if sums are wrong is it read again, to name the rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import itemgetter
from typing import Any, NamedTuple

from service.errors import PriceUnknown
from service.store import cap_scopes, holds, ledger, ledger_entries, users
from service.store.budgets import MASK, CounterEntry
from service.store.closed_windows import Closed
from service.store.database import Database, Row, Transaction
from service.store.ledger import HELD, TREE, UPSTREAM
from service.types import Usage
from service.usage.chains import BLOCK, CAP_KINDS, CapHistory, ChainReader, ChainWalk, EntryBlock, Link, Sums
from service.usage.counter_snapshot import CounterSnapshot, Span, moved_back, span_of
from service.usage.prices import PriceTable
from service.usage.tree_sums import ACCOUNTS, TreeSums, holds_as_much, payers

MAX_FAULTS = 1_000  # faults listed; the rest is only counted
MAX_PLACES = 200  # blocks and windows that are verified link by link
_call = itemgetter(*ledger_entries.CALL)  # `called_at` last
ReportProgress = Callable[[int], object]  # receives the number of rows read


def _ignore(rows: int) -> None:
    """Report no progress."""


class Fault(NamedTuple):
    """Fault in the ledger, and the row that shows it."""

    row: str
    detail: str

    def __str__(self) -> str:
        return f"{self.row}: {self.detail}"


class Checked(NamedTuple):
    entries: int
    counters: int
    spent: int  # nano-dollars over all calls
    held: int
    faults: list[Fault]
    more: int = 0  # faults beyond `MAX_FAULTS` or `MAX_PLACES`


def check(db: Database, prices: PriceTable, progress: ReportProgress = _ignore) -> Checked:
    """Verify the whole ledger, while others write to it.

    `progress` receives the number of rows read.
    """
    snapshot = CounterSnapshot.take(db)
    sums = Sums(snapshot, lambda state: span_of(state.counter))
    books = _Books(prices, sums, _workspaces(db))
    books.read(ledger_entries.every(db, read=progress))
    books.compare_trees()
    books.compare_holds(db)
    for span, rest in snapshot.sums.items():
        sums.sums[span] = (sums.sums[span] - rest) & MASK
    incomplete = moved_back(db, sums.later)
    spans = sums.faulty() | {span_of(name) for name in (*incomplete, *sums.windows)}
    if spans:
        _name_faults(db, books, spans, incomplete, progress)
    spent, held = books.totals[UPSTREAM], books.totals[HELD]
    return Checked(books.entries, snapshot.counters, spent, held, books.faults, books.more)


def _name_faults(
    db: Database, books: _Books, spans: set[Span], incomplete: set[str], progress: ReportProgress
) -> None:
    """Read the ledger twice more: to find the faulty blocks of chains, and to name the faulty rows in them."""

    def block(state: CounterEntry) -> EntryBlock | None:
        return (state.counter, state.seq >> BLOCK) if span_of(state.counter) in spans else None

    snapshot = CounterSnapshot.take(db, spans=spans, incomplete=incomplete)
    sums = Sums(snapshot, block, last_states=True)
    _Books(books.prices, sums, books.workspace_of).read(ledger_entries.every(db, read=progress))
    for state in snapshot.last.values():
        sums.add(state, -1)
    rolled: dict[Span, Closed] = {}
    for state in sums.last_states.values():
        if snapshot.rolled(state.counter):
            sums.add(state, -1)
            span = span_of(state.counter)
            rolled[span] = rolled.get(span, Closed()).plus(Closed(1, state.spent, state.fingerprint))
    places = sorted(sums.faulty(), key=str)
    walk = ChainWalk(snapshot, set(places[:MAX_PLACES]), set(sorted(sums.windows)[:MAX_PLACES]))
    _Books(books.prices, walk, books.workspace_of).read(ledger_entries.every(db, read=progress))
    for row, detail in walk.faults():
        books.fault(row, detail)
    for (period, start), stored in snapshot.closed.items():
        found = rolled.get((period, start), Closed())
        if (period, start) in spans and found != stored:
            books.fault(f"closed_windows {period}/{start}", f"it says {stored}, the ledger {found}")
    books.more += len(places[MAX_PLACES:]) + max(0, len(sums.windows) - MAX_PLACES)


def _workspaces(db: Database) -> Callable[[str], str | None]:
    """Return a function that finds a user's workspace: read once for each user whose workspace has a cap.

    A workspace that has spent by itself stands in a user's place.
    """

    @cache
    def workspace_of(user_id: str) -> str | None:
        if user_id.startswith("wsp_"):
            return user_id
        return db.query(lambda tx: users.workspace_of(tx, user_id))

    return workspace_of


class _Books:
    """Pass over the ledger: records faults of single entries, and passes the links between entries to `reader`."""

    def __init__(
        self, prices: PriceTable, reader: ChainReader | None, workspace_of: Callable[[str], str | None]
    ) -> None:
        self.prices = prices
        self.workspace_of = workspace_of
        self.entries = 0
        self.faults: list[Fault] = []
        self.more = 0
        self.totals = {HELD: 0, UPSTREAM: 0}
        self._trees = TreeSums()
        self.open: dict[str, Row] = {}  # by hold id: the held row of each hold that is not settled
        self._reader = reader
        self._caps = CapHistory()

    def read(self, found: Iterable[Sequence[Row]]) -> None:
        for rows in found:
            self._entry(rows)
            self.entries += 1

    def _entry(self, rows: Sequence[Row]) -> None:
        name, kind = _name(rows[0]), rows[0]["kind"]
        if not all(_are_states(row["counters"]) for row in rows if row["counters"]):
            self.fault(name, "its counters cannot be read")
            return
        if kind in CAP_KINDS:
            self._cap_entry(rows[0])
        by_account = {row["account"].partition(":")[0]: row for row in rows}
        if kind not in CAP_KINDS and (
            len(rows) != len(by_account) or by_account.keys() not in ACCOUNTS.get(kind, ())
        ):
            self.fault(name, "a row of this entry is missing, or one too many")
            return
        if sum(row["amount_nano"] for row in rows) != 0:
            self.fault(name, "its rows do not balance")
        for account in self.totals.keys() & by_account.keys():
            self.totals[account] += by_account[account]["amount_nano"]
        if TREE in by_account:
            self.totals[HELD] += by_account[TREE]["amount_nano"]
            self._trees.add(by_account[TREE])
        payer = by_account.get("user") or by_account.get(TREE)
        if kind == "hold" and payer:
            held = by_account.get(HELD) or by_account[TREE]
            self.open[rows[0]["entry_id"]] = held
            self._one_call(rows, payer, held)
            self._link(held, held=held["amount_nano"])
        elif kind == "settle" and payer:
            hold = self.open.pop(rows[0]["entry_id"], None)
            self._one_call([*rows, hold] if hold else rows, payer, by_account[UPSTREAM])
            self._settlement(by_account[HELD], by_account[UPSTREAM], hold, by_account.get(TREE))
        elif kind == "release" and payer:
            left, hold = by_account[TREE], self.open.pop(rows[0]["entry_id"], None)
            self._one_call([*rows, hold] if hold else rows, payer, left)
            self._link(left, held=left["amount_nano"])
            self._closes(left, hold)

    def _one_call(self, rows: Sequence[Row], user: Row, reference: Row) -> None:
        """Check that the rows of one call agree with `reference` and that its counters belong to its scopes."""
        call = _call(reference)
        silent = (*(None,) * (len(call) - 1), reference["called_at"])  # one row of each entry has all fields
        if any(_call(row) not in (call, silent) for row in rows) or user["account"] not in payers(
            user, reference
        ):
            self.fault(_name(user), "its rows are of different calls")
        columns = ((kind, column) for kind, column in holds.COLUMN_OF.items() if kind != "workspace")
        scopes = {"service", *(f"{kind}:{reference[column]}" for kind, column in columns)}
        # Of any row: the settlement of a release before lacks it.
        named = {row["end_user"] for row in rows if row["end_user"] is not None}
        scopes |= {cap_scopes.of_end_user(str(reference["key_id"]), name) for name in named}
        for counter in _counters(*rows):
            scope = counter.rsplit("/", 3)[0]
            if scope.startswith("workspace:"):
                scopes.add(f"workspace:{self.workspace_of(reference['user_id'])}")
            if scope not in scopes:
                self.fault(_name(user), f"it counts in {counter}, which is not its own")

    def _closes(self, row: Row, hold: Row | None) -> None:
        """Check that the entry that ends a hold follows it."""
        if hold is None:
            self.fault(_name(row), "it settles a hold that is not in the ledger")
        elif missing := _counters(hold) - _counters(row):
            self.fault(_name(row), f"it leaves money held in {', '.join(sorted(missing))}")

    def _settlement(self, held: Row, upstream: Row, hold: Row | None, tree: Row | None) -> None:
        name, cost = _name(held), upstream["amount_nano"]
        self._link(held, held=held["amount_nano"] + (tree["amount_nano"] if tree else 0), spent=cost)
        self._closes(held, hold)
        if hold is not None and hold["amount_nano"] != -held["amount_nano"]:
            self.fault(name, f"it settles {-held['amount_nano']}, but {hold['amount_nano']} was held")
        if (expected := self._expected_cost(upstream, -held["amount_nano"])) != cost:
            self.fault(name, f"it books {cost} for what costs {expected}")

    def _expected_cost(self, row: Row, held: int) -> int | None:
        """Compute a call's due cost in nano-dollars: by its tokens and the price row it names, or by its basis.

        Basis `worst` is the hold, `nothing` is 0. None without such a price row.
        """
        if row["basis"] in ("worst", "nothing"):
            return held if row["basis"] == "worst" else 0
        usage = Usage(*(row[column] for column in ledger.TOKENS))
        try:
            return self.prices.by_id(row["price_id"]).cost(usage)
        except (PriceUnknown, ValueError):
            return None

    def _cap_entry(self, row: Row) -> None:
        if self._reader is None:
            return
        states = _states(row)
        before, faulty = self._caps.follow(row, states)
        self._reader.cap_entry(row, faulty)
        for stripe, state in enumerate(states):
            cap = before[stripe] if stripe < len(before) else None
            self._reader.link(Link(state, row["kind"], _name(row)), cap)

    def _link(self, row: Row, *, held: int, spent: int = 0) -> None:
        if self._reader is not None:
            for state in _states(row):
                self._reader.link(Link(state, row["kind"], _name(row), spent, held), None)

    def compare_trees(self) -> None:
        """Find trees that have ended and whose money is not all accounted for."""
        for account, left in self._trees.left_over():
            self.fault(account, f"{left} nano-dollars are left in it after its end")

    def compare_holds(self, db: Database) -> None:
        """Compare the open holds with the ledger's open entries of the same moment."""

        def read(tx: Transaction) -> tuple[list[holds.Hold], dict[str, Row]]:
            tx.use_one_snapshot()
            found = holds.every(tx)
            now = _Books(self.prices, None, self.workspace_of)
            now.read(ledger_entries.of(tx, self.open.keys() | {hold.id for hold in found}))
            return found, now.open

        found, still_open = db.query(read)
        for hold in found:
            entry = still_open.pop(hold.id, None)
            if entry is None:
                self.fault(f"holds {hold.id}", "no open entry of the ledger stands for it")
            elif not holds_as_much(entry, hold):
                held = entry["amount_nano"]
                self.fault(f"holds {hold.id}", f"it holds {hold.amount_nano}, the ledger {held}")
            elif _call(entry) != _call(hold._asdict()) or not _counters(entry) <= {*hold.counters}:
                self.fault(f"holds {hold.id}", "its call or its counters are not the ledger's")
        for entry in still_open.values():
            self.fault(_name(entry), "it is neither settled nor open")

    def fault(self, row: str, detail: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(Fault(row, detail))
        else:
            self.more += 1


def _states(row: Row) -> list[CounterEntry]:
    return [CounterEntry(*entry) for entry in row["counters"] or ()]


def _are_states(states: Any) -> bool:
    """Return whether each item is a counter id and four integers."""
    return isinstance(states, list) and all(
        isinstance(state, list) and [*map(type, state)] == [str, int, int, int, int] for state in states
    )


def _counters(*rows: Row) -> set[str]:
    return {name for row in rows for name, *_ in row["counters"] or ()}


def _name(row: Row) -> str:
    return f"ledger {row['entry_id']} {row['kind']}"
