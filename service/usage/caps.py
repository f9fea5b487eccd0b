"""Budget caps as values: scope, period, amount, and a cap's distribution over its counter stripes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal, NamedTuple, get_args

from service.store.budgets import BudgetWindow
from service.store.caps import NO_LIMIT as NO_LIMIT
from service.store.database import Row
from service.text import numerals
from service.types import NANO, rfc3339, usd

Period = Literal["day", "month", "total"]
PERIODS: tuple[Period, ...] = get_args(Period)
LEVELS = (50, 80, 100)  # percent of a cap at which a warning is sent
DAY = 86_400_000


class Cap(NamedTuple):
    """At most `amount` nano-dollars for a scope in each period.

    An override ends at `until` (ms), for `after` nano-dollars then; None: for no cap.
    """

    scope: str
    period: str
    amount: int
    default: bool = False  # of the settings or of the key, not set on this scope
    until: int | None = None
    after: int | None = None

    @property
    def id(self) -> str:
        return f"{self.scope}/{self.period}"

    @property
    def only_counts(self) -> bool:
        """Return whether no cap is set any more: spending is counted for the next one of the same window."""
        return self.default and self.amount >= NO_LIMIT

    def window(self, at: int) -> BudgetWindow:
        """Return the window that a call made at `at` (ms) counts in. Days and months are in UTC."""
        return BudgetWindow(self.scope, self.period, window_start(self.period, at))


class Standing(NamedTuple):
    """State of a cap in its current window, in nano-dollars."""

    cap: Cap
    window: BudgetWindow
    spent: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        return max(0, self.cap.amount - self.spent - self.held)

    def public(self) -> dict[str, Any]:
        limited, after = self.cap.amount < NO_LIMIT, self.cap.after
        return {
            "scope": self.cap.scope,
            "period": self.cap.period,
            "amount_usd": usd(self.cap.amount) if limited else None,
            "spent_usd": usd(self.spent),
            "reserved_usd": usd(self.held),
            # Rounded down, so that the amount shown is really available.
            "left_usd": usd(self.left // 1_000 * 1_000) if limited else None,
            "renews_at": rfc3339(window_end(self.window)),
            "default": self.cap.default,
            "until": rfc3339(self.cap.until),
            "after_usd": None if after is None or after >= NO_LIMIT else usd(after),
        }


class BudgetWarning(NamedTuple):
    """Warning that a cap's window has used `percent` of it."""

    percent: int
    standing: Standing

    @property
    def id(self) -> str:
        return f"{self.standing.window.id}/{self.percent}"

    def public(self) -> dict[str, Any]:
        figures = self.standing.public()
        for name in ("default", "until", "after_usd"):  # recipients of warnings may not see the settings
            del figures[name]
        return {"percent": self.percent, **figures}


def nano_of(text: str) -> int:
    """Convert dollars (a decimal string) to nano-dollars. Raises `ValueError`."""
    nano = numerals.amount(text) * NANO
    if nano != nano.to_integral_value() or not 0 <= nano < NO_LIMIT:
        raise ValueError("is negative, too large, or finer than a nano-dollar")
    return int(nano)


def window_start(period: str, at: int) -> int:
    """Return the start (ms) of the window that contains `at` (ms)."""
    if period == "total":
        return 0
    if period == "day":
        return at - at % DAY
    moment = datetime.fromtimestamp(at / 1000, UTC)
    return int(datetime(moment.year, moment.month, 1, tzinfo=UTC).timestamp()) * 1000


def window_end(window: BudgetWindow) -> int | None:
    """Return the end of a window (ms), when the cap renews; None: never."""
    if window.period == "total":
        return None
    if window.period == "day":
        return window.start + DAY
    return window_start("month", window.start + 31 * DAY)


def closed_before(at: int) -> dict[str, int]:
    """Return, per period, the start (ms) before which windows ended over a day before `at`; no call counts there."""
    return {period: window_start(period, at - DAY) for period in ("day", "month")}


def level(spent: int, cap: int) -> int:
    """Return the highest level of `LEVELS` (percent) that is reached; 0: none."""
    return max((percent for percent in LEVELS if spent > 0 and spent * 100 >= cap * percent), default=0)


def distribute(cap: int, taken: Sequence[int]) -> list[int]:
    """Distribute a cap: each stripe gets its taken amount and an equal part of the remainder, which may be negative."""
    part, rest = divmod(cap - sum(taken), len(taken))
    return [amount_taken + part + (rest if index == 0 else 0) for index, amount_taken in enumerate(taken)]


def distribute_over(counters: Sequence[Row], cap: int) -> list[int]:
    """Distribute a cap over open counters."""
    return distribute(cap, [committed(row) for row in counters])


def distribute_with_room(counters: Sequence[Row], stripe: int, amount: int) -> list[int]:
    """Distribute a cap so that stripe number `stripe` has room for `amount`, if all stripes together have it.

    The remainder is spread evenly while that leaves room for `amount` in each; near the cap one stripe gets all of it.
    """
    cap = sum(row["cap_nano"] for row in counters)
    left = cap - sum(committed(row) for row in counters)
    reserved = left if left < amount * len(counters) else amount
    shares = distribute_over(counters, cap - reserved)
    shares[stripe] += reserved
    return shares


def committed(row: Row) -> int:
    return int(row["spent_nano"] + row["held_nano"])


def room(row: Row) -> int:
    """Return the nano-dollars one counter has left."""
    return int(row["cap_nano"]) - committed(row)


def cap_of(row: Row, at: int) -> Cap | None:
    """Return the cap in force at `at` (ms); None: an override has ended, and no cap stood before it."""
    amount, until, after = row["amount_nano"], row["until"], row["after_nano"]
    if until is None or until > at:
        amount = NO_LIMIT if amount is None else amount
        return Cap(row["scope"], row["period"], amount, until=until, after=after)
    return None if after is None else Cap(row["scope"], row["period"], after)


def is_stale(counters: Sequence[Row]) -> bool:
    """Return whether the cap of an open window has to be looked up again."""
    return any(row["stale"] for row in counters)


def standing_of(cap: Cap, window: BudgetWindow, counters: Sequence[Row]) -> Standing:
    """Compute a cap's state from its counters.

    The amount is that of the open window: a changed default of the settings applies from the next window on.
    """
    if counters and not is_stale(counters):
        cap = cap._replace(amount=sum(row["cap_nano"] for row in counters))
    spent, held = (sum(row[name] for row in counters) for name in ("spent_nano", "held_nano"))
    return Standing(cap, window, spent, held)
