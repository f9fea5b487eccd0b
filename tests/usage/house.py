"""Money without runs: a database with caps, and calls that are held and settled by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import sqlalchemy as sa

from service.ids import new_id
from service.observe.log_lines import LogLines
from service.observe.metrics import Metrics
from service.observe.observer import Observer
from service.store import bookings, holds
from service.store.database import Database, Transaction
from service.store.holds import Hold
from service.store.schema import caps, counters
from service.store.transaction import WriteInTransaction
from service.types import NANO, Run, RunRequest, Usage
from service.usage.budgets import Budgets
from service.usage.estimate import CallEstimate, Reserved, Settlement, TreeEstimate
from service.usage.ledger import Checked, check
from service.usage.prices import PriceTable
from service.usage.reservation import Spending
from tests.tables import create_tables

TABLE = PriceTable.load()
SONNET = TABLE.price("claude-sonnet-5-5", date(2026, 11, 21))
CENT = NANO // 100
ASKED = 800  # tokens: with a prompt of at most 500 a call can cost a cent, see `wish`
USED = Usage(100, 200)


class House:
    """One process's view of a database's money."""

    def __init__(self, url: str, *, patience: float = 5.0, create: bool = True, **caps: Any) -> None:
        self.db = Database(url, pool_size=20)
        if create:
            create_tables(self.db.engine)
        self.warnings: list[Mapping[str, Any]] = []
        run_most = caps.pop("run_most", None)
        day = {name.removesuffix("_day"): caps.pop(name) for name in [*caps] if name.endswith("_day")}
        self.metrics = Metrics()
        observer = Observer(self.metrics, LogLines(TABLE.usd_today))
        self.budgets = Budgets(self.db, observer, notify=self._notified, day=day, **caps)
        self.spending = Spending(self.db, self.budgets, observer, run_most=run_most, patience=patience)

    def _notified(self, tx: Transaction, warning_id: str, public: Mapping[str, Any]) -> None:
        tx.after_commit(lambda: self.warnings.append(public))

    def reserve(self, run: Run | None = None, **wishes: Any) -> Reserved:
        return self.spending.reserve(wish(run or a_run(), **wishes), self.write, lambda: None)

    def plant(self, run: Run, amount: int) -> Hold:
        """Hold the most that a tree may cost."""
        return self.spending.reserve(TreeEstimate.of(run, 1, amount, None), self.write, lambda: None).hold

    def settle(self, reserved: Reserved, usage: Usage) -> int:
        settlement = self.spending.settle(reserved.hold, SONNET, usage)
        self.write(settlement.work)
        return settlement.cost

    def spend(self, usage: Usage, run: Run | None = None, **wishes: Any) -> int:
        return self.settle(self.reserve(run, **wishes), usage)

    def write(self, *works: WriteInTransaction) -> None:
        def all_of_them(tx: Transaction) -> None:
            for work in works:
                work(tx)

        self.db.transact(all_of_them)

    def finish(self, settlement: Settlement) -> int:
        self.write(settlement.work)
        return settlement.cost

    def figures(self, scope: str, period: str = "day") -> tuple[int, int]:
        """Return the amounts spent and held."""
        state = next(state for state in self.budgets.of([scope]) if state.cap.period == period)
        return state.spent, state.held

    def check(self) -> Checked:
        return check(self.db, TABLE)


def a_run(user: str = "usr_ada", *, agent: str = "support", key: str | None = None, **fields: Any) -> Run:
    session, end_user = fields.pop("session", None), fields.pop("end_user", None)
    request = RunRequest(agent, (), session_id=session, end_user=end_user)
    fields = {"attempt": 1, "id": new_id("run"), **fields}
    return Run(
        user_id=user, agent=agent, agent_version="1", door="invoke", request=request, key_id=key, **fields
    )


def wish(
    run: Run,
    *,
    max_tokens: int = ASKED,
    fewest: int = 64,
    input_tokens: int | None = 500,
    count: Callable[[], int] | None = None,
    most: int | None = None,
    tree: Hold | None = None,
) -> CallEstimate:
    """500 tokens at 4 dollars a million (the dearest a prompt can be) and 800 at 10 are a cent."""
    return CallEstimate(run, 1, SONNET, SONNET.model, max_tokens, fewest, input_tokens, count, most, tree)


def end_overrides(house: House) -> None:
    """Let the time of every override pass, for the database's clock too."""
    house.write(
        lambda tx: tx.execute(sa.update(caps).where(caps.c.until.is_not(None)).values(until=1)),
        lambda tx: tx.execute(
            sa.update(counters).where(counters.c.cap_until.is_not(None)).values(cap_until=1)
        ),
    )


def at_once(count: int, work: Callable[[int], object]) -> list[Any]:
    """Run `work` in so many threads at the same moment; results and exceptions in order."""
    results: list[Any] = [None] * count
    barrier = threading.Barrier(count)

    def one(number: int) -> None:
        barrier.wait(60)
        try:
            results[number] = work(number)
        except Exception as error:
            results[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


def hold_at(house: House, at: int, user: str = "usr_ada") -> Hold:
    """A call made at `at` (ms), and held for."""
    run = a_run(user)
    hold = Hold(
        id=new_id("hld"),
        run_id=run.id,
        attempt=1,
        step=1,
        workspace_id=run.workspace_id,
        user_id=user,
        key_id=None,
        agent=run.agent,
        session_id=None,
        model=SONNET.model,
        price_id=SONNET.id,
        amount_nano=CENT,
        called_at=at,
    )
    caps = house.db.query(lambda tx: house.budgets.in_force.read(tx, hold.scopes))
    house.budgets.windows.open(caps, at)

    def take(tx: Transaction) -> None:
        ids = sorted(house.budgets.windows.stripe(cap.window(at), 0) for cap in caps)
        placed = hold._replace(counters=tuple(ids))
        holds.insert(tx, placed)
        bookings.hold(tx, placed)

    house.write(take)
    return hold


def spend_at(house: House, at: int, user: str = "usr_ada", usage: Usage = USED) -> Hold:
    """The same, and settled."""
    hold = hold_at(house, at, user)
    house.write(house.spending.settle(hold, SONNET, usage).work)
    return hold
