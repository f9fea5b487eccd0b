"""Caps: how much may be spent by whom, in which period. The arithmetic of windows and stripes, and changing a cap."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

from service.errors import DatabaseUnavailable
from service.observe.logs import event
from service.observe.metrics import Metrics
from service.store import budgets as rows
from service.store import holds, ledger
from service.store.base import Database, Row, Transaction
from service.store.budgets import Window
from service.types import NANO, now_ms, rfc3339, usd

log = logging.getLogger("slipway.money")

Period = Literal["day", "month", "total"]
PERIODS: tuple[Period, ...] = get_args(Period)
NO_LIMIT = 10**18  # nano-dollars: a cap that is lifted goes on counting, towards a billion dollars
STRIPES = 8  # of a window that everyone shares, where the database has more than one writer
SHARED_BY_MANY = ("service", "agent")
LEVELS = (50, 80, 100)  # percent of a cap that are warned of
DAY = 86_400_000


class Cap(NamedTuple):
    """At most `amount` nano-dollars for a scope in each period."""

    scope: str
    period: str
    amount: int
    default: bool = False  # from the settings, not set by anybody

    @property
    def id(self) -> str:
        return f"{self.scope}/{self.period}"

    def window(self, at: int) -> Window:
        """The window that a call made at `at` (ms) counts in. Days and months are UTC's."""
        return Window(self.scope, self.period, window_start(self.period, at))


class Standing(NamedTuple):
    """How a cap stands in its present window, in nano-dollars."""

    cap: Cap
    window: Window
    spent: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        return max(0, self.cap.amount - self.spent - self.held)

    def public(self) -> dict[str, Any]:
        limited = self.cap.amount < NO_LIMIT
        return {
            "scope": self.cap.scope,
            "period": self.cap.period,
            "amount_usd": usd(self.cap.amount) if limited else None,
            "spent_usd": usd(self.spent),
            "reserved_usd": usd(self.held),
            "left_usd": usd(self.left // 1_000 * 1_000)
            if limited
            else None,  # rounded down: it is really there
            "renews_at": rfc3339(window_end(self.window)),
            "default": self.cap.default,
        }


class BudgetWarning(NamedTuple):
    """A cap whose window has used `percent` of it."""

    percent: int
    standing: Standing


class Budgets:
    """The caps in force. `user_day` and `service_day` are the settings' defaults; `told` hears each warning once."""

    def __init__(
        self,
        db: Database,
        metrics: Metrics,
        *,
        user_day: int | None = None,
        service_day: int | None = None,
        told: Callable[[BudgetWarning], None] = lambda warning: None,
    ) -> None:
        self._db = db
        self._metrics = metrics
        self._defaults = {"user": user_day, "service": service_day}
        self._told = told
        self._stripes = 1 if db.sqlite else STRIPES

    def caps(self, tx: Transaction, scopes: Sequence[str]) -> list[Cap]:
        """Every cap on these scopes: those that were set, and the defaults of the others."""
        found = [_cap(row) for row in rows.read(tx, scopes)]
        set_for_day = {cap.scope for cap in found if cap.period == "day"}
        for scope in scopes:
            amount = self._defaults.get(scope.partition(":")[0])
            if amount is not None and scope not in set_for_day:
                found.append(Cap(scope, "day", amount, default=True))
        return found

    def standing(self, tx: Transaction, caps: Iterable[Cap], at: int | None = None) -> list[Standing]:
        """How these caps stand now."""
        windows = [(cap, cap.window(at or now_ms())) for cap in caps]
        opened = rows.stripes(tx, [window for _, window in windows])
        return [_standing(cap, window, opened.get(window.id, ())) for cap, window in windows]

    def of(self, scopes: Sequence[str]) -> list[Standing]:
        """How every cap on these scopes stands."""
        return self._db.query(lambda tx: self.standing(tx, self.caps(tx, scopes)))

    def page(self, *, limit: int, after: str | None) -> list[Standing]:
        """How every cap stands that somebody set, and the service's own; by their ids, after the id `after`."""

        def read(tx: Transaction) -> list[Standing]:
            found = {cap.id: cap for cap in (*self.caps(tx, ["service"]), *map(_cap, rows.every(tx)))}
            wanted = sorted(name for name in found if after is None or name > after)
            return self.standing(tx, [found[name] for name in wanted[:limit]])

        return self._db.query(read)

    def put(self, scope: str, period: Period, amount: int | None) -> Standing:
        """Set a cap, from now on and for the window that is open; None lifts it, the default included.

        What the window has spent and holds counts, so a cap may be set below it: then nothing more fits.
        """
        cap = Cap(scope, period, NO_LIMIT if amount is None else amount)
        return self._db.transact(lambda tx: self._put(tx, cap, amount))

    def _put(self, tx: Transaction, cap: Cap, amount: int | None) -> Standing:
        rows.put(tx, cap.scope, cap.period, amount)
        window = cap.window(now_ms())
        counters = rows.stripes(tx, [window], lock=True).get(window.id)
        if (
            counters is None
        ):  # nobody counts yet: let nobody begin to until everything that goes on is counted in
            rows.stop_holds(tx)
            counters = rows.stripes(tx, [window], lock=True).get(window.id)
        if counters is None:
            held = holds.adopt(tx, cap.scope, window.start, window.counter(0))
            return self._open(tx, cap, window, held)
        shares = shared_out(counters, cap.amount)
        ledger.shared(tx, "cap", window, cap.amount, rows.share(tx, counters, shares))
        return _standing(cap, window, counters)._replace(cap=cap)

    def open(self, caps: Iterable[Cap], at: int) -> None:
        """Open the windows of these caps that nobody has opened yet."""

        def work(tx: Transaction) -> None:
            for cap in sorted(caps):
                row = rows.locked(
                    tx, cap.scope, cap.period
                )  # else a cap changed meanwhile would open as it was
                fresh = cap if row is None else _cap(row)
                self._open(tx, fresh, fresh.window(at), 0)

        self._db.transact(work)

    def _open(self, tx: Transaction, cap: Cap, window: Window, held: int) -> Standing:
        spent = ledger.spent_since(tx, cap.scope, window.start)
        wide = cap.scope.partition(":")[0] in SHARED_BY_MANY
        shares = dealt(cap.amount, [spent + held] + [0] * ((self._stripes if wide else 1) - 1))
        opened = rows.insert(tx, window, shares, spent, held)
        if opened:
            ledger.shared(tx, "open", window, cap.amount, opened)
        return Standing(cap, window, spent, held)

    def gather(self, cap: Cap, at: int, stripe: int, amount: int) -> None:
        """Deal a window's cap out anew to its stripes, so that `amount` fits this one if it fits at all."""
        window = cap.window(at)

        def work(tx: Transaction) -> None:
            counters = rows.stripes(tx, [window], lock=True).get(window.id, [])
            total = sum(row["cap_nano"] for row in counters)
            shares = shared_out(counters, total, stripe, amount)
            ledger.shared(tx, "share", window, total, rows.share(tx, counters, shares))

        self._db.transact(work)

    def stripe(self, window: Window, seed: int) -> str:
        """The counter of a window that a run takes from: always the same, so that its calls never cross another's."""
        wide = window.scope.partition(":")[0] in SHARED_BY_MANY
        return window.counter(seed % self._stripes if wide else 0)

    def watch(self, tx: Transaction, counters: Iterable[Row]) -> None:
        """Once what changed these counters is committed, warn of the windows that have passed a level."""
        for row in counters:
            if level(row["spent_nano"], row["cap_nano"]) > row["warned"]:
                tx.after_commit(partial(self.warn, row["window_id"]))

    def warn(self, window_id: str, *, refused: bool = False) -> None:
        """Tell of every level a window has passed, each once however many see it.

        `refused`: a call no longer fits, so the cap is used up. Never raises: what cannot be told now is told later.
        """
        try:
            standing, warned = self._db.query(lambda tx: self._level(tx, window_id), patience=0)
            percent = 100 if refused else level(standing.spent, standing.cap.amount)
            for passed in LEVELS:
                if warned < passed <= percent and self._db.transact(
                    partial(rows.warn, window_id=window_id, percent=passed)
                ):
                    self._tell(BudgetWarning(passed, standing))
        except DatabaseUnavailable:
            log.warning("budget_warning_waits", extra={"window": window_id})

    def _level(self, tx: Transaction, window_id: str) -> tuple[Standing, int]:
        scope, period, start = window_id.rsplit("/", 2)
        window = Window(scope, period, int(start))
        counters = rows.stripes(tx, [window]).get(window_id, [])
        return _standing(Cap(scope, period, 0), window, counters), min(row["warned"] for row in counters)

    def _tell(self, warning: BudgetWarning) -> None:
        self._metrics.budget_warning(warning.standing.cap.scope.partition(":")[0], warning.percent)
        figures = {key: value for key, value in warning.standing.public().items() if key != "default"}
        event(log, "budget_warning", percent=warning.percent, **figures)
        self._told(warning)


def nano_of(text: str) -> int:
    """Dollars as a decimal string in nano-dollars. Raises `ValueError`."""
    try:
        amount = Decimal(text) * NANO
    except InvalidOperation:
        raise ValueError("is not an amount such as 12.50") from None
    if not amount.is_finite() or amount != amount.to_integral_value() or not 0 <= amount < NO_LIMIT:
        raise ValueError("is negative, too large, or finer than a nano-dollar")
    return int(amount)


def window_start(period: str, at: int) -> int:
    """When the window of a moment began, in ms."""
    if period == "total":
        return 0
    if period == "day":
        return at - at % DAY
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * 1000


def window_end(window: Window) -> int | None:
    """When a window ends and the cap is whole again, in ms; None: never."""
    if window.period == "total":
        return None
    if window.period == "day":
        return window.start + DAY
    return window_start("month", window.start + 31 * DAY)


def level(spent: int, cap: int) -> int:
    """The highest percentage to warn of that is reached; 0: none."""
    return max((percent for percent in LEVELS if spent > 0 and spent * 100 >= cap * percent), default=0)


def dealt(cap: int, committed: Sequence[int]) -> list[int]:
    """Shares of a cap: to each what is committed, and an equal part of the rest, which may be below nothing."""
    part, rest = divmod(cap - sum(committed), len(committed))
    return [mine + part + (rest if index == 0 else 0) for index, mine in enumerate(committed)]


def shared_out(counters: Sequence[Row], cap: int, stripe: int = 0, amount: int = 0) -> list[int]:
    """The same for counters that are open; `amount` is set aside for one of them where it fits."""
    committed = [row["spent_nano"] + row["held_nano"] for row in counters]
    aside = max(0, min(amount, cap - sum(committed)))
    shares = dealt(cap - aside, committed)
    shares[stripe % len(shares)] += aside
    return shares


def _cap(row: Row) -> Cap:
    return Cap(row["scope"], row["period"], NO_LIMIT if row["amount_nano"] is None else row["amount_nano"])


def _standing(cap: Cap, window: Window, counters: Sequence[Row]) -> Standing:
    """The amount is that of the open window: a changed default applies from the next one on."""
    if counters:
        cap = cap._replace(amount=sum(row["cap_nano"] for row in counters))
    spent, held = (sum(row[name] for row in counters) for name in ("spent_nano", "held_nano"))
    return Standing(cap, window, spent, held)
