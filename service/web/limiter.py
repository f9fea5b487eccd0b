"""Flask-Limiter over this process's Redis client: one dynamic limit for all counts."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import cache
from typing import Any, NamedTuple, cast

import redis
from flask import Flask, g
from flask_limiter import Limiter, RateLimitExceeded, RequestLimit
from limits import parse_many

from service.auth.revocation import COMPLETE
from service.auth.revocation import KEY as DISTRUSTED
from service.errors import RateLimited
from service.usage.call_counter import count_call
from service.usage.rate_limits import SCHEME, STRATEGY, LimitStorage, LimitWindow, tightest, window_of
from service.web.guards import confirm_login, login_to_confirm

log = logging.getLogger("slipway.limits")
_items = cache(parse_many)


class Limit(NamedTuple):
    """Rate, such as `60/minute`, that a request counts against; empty: no limit.

    `what` is for messages: its first word is the metric's label. Counted by `scope` and `key`, such as a user's id.
    """

    what: str
    rate: str
    scope: str
    key: str


class Limits:
    """Limits of one application: `count` by Flask-Limiter, `count_call` in the round trip that checks the log-in."""

    def __init__(self, app: Flask) -> None:
        built = app.extensions["slipway"]
        options: Any = {"redis_store": built.infra.redis_store, "alone": self._tell_alone}
        self._metrics = built.infra.metrics
        self._alone = False
        storage: Any = {"storage_uri": f"{SCHEME}://", "storage_options": options}
        self._limiter = Limiter(lambda: g.counting.key, app=app, strategy=STRATEGY, **storage)
        # The only limit, on a function that does nothing. It is also evaluated before each view, when none is counting.
        dynamic = self._limiter.shared_limit(
            lambda: g.counting.rate if "counting" in g else "", lambda endpoint: g.counting.scope
        )
        self._hit = dynamic(lambda: None)
        self._redis_store = built.infra.redis_store

    def count(self, limit: Limit) -> None:
        """Count a request. Raises `RateLimited`."""
        self.within(self.take(limit), limit.what)

    def count_call(self, limit: Limit) -> None:
        """Count a call of an authenticated caller, and check its log-in in the same round trip.

        Raises `RateLimited`, and before that `InvalidToken` for an ended log-in, which is not counted.
        """
        if not limit.rate:
            confirm_login()
            return
        try:
            window = self._take_in_one_trip(limit)
        except redis.RedisError:
            confirm_login()
            window = self.take(limit)
        self.within(window, limit.what)

    def take(self, limit: Limit) -> LimitWindow | None:
        """Count a request; return the tightest window, with `remaining` -1 when it is refused. None: no limit."""
        if not limit.rate:
            return None
        g.counting = limit
        with suppress(RateLimitExceeded):
            self._hit()
        return tightest([self._window(one) for one in self._limiter.current_limits])

    def within(self, window: LimitWindow | None, what: str) -> None:
        """Store the tightest window for the response's headers. Raises `RateLimited` when it is full."""
        if window is None:
            return
        g.limit_window = tightest([window, *([g.limit_window] if "limit_window" in g else [])])
        if window.remaining < 0:
            self._metrics.rate_limited(what.partition(" ")[0])
            raise RateLimited(f"More than {window.limit} {what}.", retry_after=window.reset)

    def _window(self, one: RequestLimit) -> LimitWindow:
        storage = cast(LimitStorage, self._limiter.storage)
        window = window_of(one.limit, storage.get_sliding_window(one.key, one.limit.get_expiry()))
        return window.after(passed=not one.breached)

    def _take_in_one_trip(self, limit: Limit) -> LimitWindow | None:
        """Count and check the log-in. Raises `redis.RedisError` and `InvalidToken`."""
        family = login_to_confirm()
        also = (DISTRUSTED, (family, COMPLETE)) if family is not None else None
        windows: list[LimitWindow] = []
        for item in _items(limit.rate):
            window, seen = count_call(self._redis_store, item, item.key_for(limit.key, limit.scope), also)
            confirm_login(seen)
            also = None
            windows.append(window)
            if window.remaining < 0:
                break
        self._tell_alone(False)
        return tightest(windows)

    def _tell_alone(self, alone: bool) -> None:
        if alone != self._alone:
            self._alone = alone
            self._metrics.limiter_fallback(alone)
            log.warning("limits_per_process" if alone else "limits_shared")
