"""Caps in force: those that were set, overrides until they end, defaults of a key and of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.store import caps as rows
from service.store.cap_scopes import default_of, with_defaults
from service.store.database import Row, Transaction
from service.types import now_ms
from service.usage.caps import NO_LIMIT, PERIODS, Cap, cap_of

MAX_REMEMBERED = 10_000  # scopes whose caps a process remembers
SetCaps = Mapping[tuple[str, str], Row]  # by scope and period


class CapsInForce:
    """Reader of caps. `day`: the settings' defaults by kind of scope, in nano-dollars a day.

    A scope on which a cap was ever set has one here for good, after an override has ended too: a window goes on
    counting, as the next cap set in it has to include all of its spending.
    """

    def __init__(self, day: Mapping[str, int | None]) -> None:
        self._day = day
        self._known: dict[str, list[Row]] = {}  # by scope, as last read

    def read(self, tx: Transaction, scopes: Sequence[str]) -> list[Cap]:
        """List every cap on these scopes."""
        wanted = with_defaults(scopes)
        usual = [row for scope in sorted(wanted) for row in self._known.get(scope, ())]
        found = rows.read(tx, wanted, expect=usual)
        if found != usual:
            self._remember(wanted, found)
        set_caps, now = _by_place(found), now_ms()
        caps = (self._cap(scope, period, set_caps, now) for scope in scopes for period in PERIODS)
        return [cap for cap in caps if cap is not None]

    def of_many(self, tx: Transaction, scopes: Sequence[str]) -> list[Cap]:
        """List every cap on any number of scopes, without remembering them."""
        set_caps, now = _by_place(rows.of_scopes(tx, with_defaults(scopes))), now_ms()
        caps = (self._cap(scope, period, set_caps, now) for scope in scopes for period in PERIODS)
        return [cap for cap in caps if cap is not None]

    def page(
        self, tx: Transaction, scope: str, period: str, limit: int, workspace_id: str | None
    ) -> list[Cap]:
        """List caps that were set, or a workspace's, after this one. Without the service's."""
        found = rows.after(tx, scope, period, limit, workspace_id)
        shared = sorted({name for row in found if (name := default_of(row["scope"])) is not None})
        set_caps, now = _by_place([*found, *(rows.read(tx, shared) if shared else ())]), now_ms()
        caps = (self._cap(row["scope"], row["period"], set_caps, now) for row in found)
        return [cap for cap in caps if cap is not None]

    def locked(self, tx: Transaction, scope: str, period: str) -> Cap | None:
        """Read a cap and keep it from changing until this transaction ends; the database's clock ends overrides."""
        found = rows.locked(tx, with_defaults([scope]), period)
        return self._cap(scope, period, _by_place(found), found[0]["now"] if found else 0)

    def _cap(self, scope: str, period: str, set_caps: SetCaps, at: int) -> Cap | None:
        own, default = set_caps.get((scope, period)), self._default(scope, period, set_caps, at)
        if own is None:
            return default
        cap = cap_of(own, at)
        if cap is None:
            return default or Cap(scope, period, NO_LIMIT, default=True)
        if cap.until is not None and cap.after is None and default is not None:
            return cap._replace(after=default.amount)
        return cap

    def _default(self, scope: str, period: str, set_caps: SetCaps, at: int) -> Cap | None:
        shared = default_of(scope)
        if shared is None:
            amount = self._day.get(scope.partition(":")[0]) if period == "day" else None
            return None if amount is None else Cap(scope, period, amount, default=True)
        row = set_caps.get((shared, period))
        if row is None:
            return None
        cap = cap_of(row, at) or Cap(scope, period, NO_LIMIT)
        return cap._replace(scope=scope, default=True)

    def _remember(self, scopes: Sequence[str], found: Sequence[Row]) -> None:
        """Remember which caps were set on these scopes, as what the next transaction expects to read."""
        if len(self._known) > MAX_REMEMBERED:
            self._known.clear()
        for scope in scopes:
            self._known.pop(scope, None)
            if of_scope := [row for row in found if row["scope"] == scope]:
                self._known[scope] = of_scope


def _by_place(found: Sequence[Row]) -> SetCaps:
    return {(row["scope"], row["period"]): row for row in found}
