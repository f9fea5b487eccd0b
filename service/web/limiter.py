"""Flask-Limiter over this process's Redis client: one dynamic limit for all counts."""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import lru_cache, partial
from typing import Any, NamedTuple, cast

from flask import Flask, g
from flask_limiter import Limiter, RateLimitExceeded, RequestLimit
from limits import parse_many

from service.errors import RateLimited
from service.usage.rate_limits import SCHEME, STRATEGY, LimitStorage, LimitWindow, tightest
from service.web.current import Request

log = logging.getLogger("slipway.limits")
_items = lru_cache(1024)(parse_many)


class Limit(NamedTuple):
    """Rate, such as `60/minute`, that a request counts against; empty: no limit.

    `label` is for messages: its first word is the metric's label. Counted by `scope` and `key`, such as a user's id.
    """

    label: str
    rate: str
    scope: str
    key: str


class Limits:
    """Limits of one application: `count` by Flask-Limiter, `add` in a round trip with other calls."""

    def __init__(self, app: Flask) -> None:
        built = app.extensions["slipway"]
        options: Any = {"redis_store": built.infra.redis_store, "alone": self._report_fallback}
        self._metrics = built.infra.metrics
        self._alone = False
        storage: Any = {"storage_uri": f"{SCHEME}://", "storage_options": options}
        self._limiter = Limiter(lambda: g.counting.key, strategy=STRATEGY, **storage)
        # Registered, so that `init_app` installs no hooks: these look for limits at each request, and find none.
        app.extensions["limiter"] = {self._limiter}
        self._limiter.init_app(app)
        # The only limit, on a function that does nothing.
        dynamic = self._limiter.shared_limit(lambda: g.counting.rate, lambda endpoint: g.counting.scope)
        self._hit = dynamic(lambda: None)
        self._storage = cast(LimitStorage, self._limiter.storage)

    def count(self, request: Request, limit: Limit) -> None:
        """Count a request. Raises `RateLimited`."""
        self.within(request, self.take(limit), limit.label)

    def add(self, request: Request, limit: Limit) -> None:
        """Count a request in its trip, which raises `RateLimited`; with the counters of `count`."""
        read = partial(self.within, request, label=limit.label)
        for item in _items(limit.rate) if limit.rate else ():
            request.trip.add(self._storage.call(item, item.key_for(limit.key, limit.scope), read))

    def take(self, limit: Limit) -> LimitWindow | None:
        """Count a request; return the tightest window, with `remaining` -1 when it is refused. None: no limit."""
        if not limit.rate:
            return None
        g.counting = limit
        with suppress(RateLimitExceeded):
            self._hit()
        return tightest([self._window(one) for one in self._limiter.current_limits])

    def within(self, request: Request, window: LimitWindow | None, label: str) -> None:
        """Store the tightest window for the response's headers. Raises `RateLimited` when it is full."""
        if window is None:
            return
        known = request.limit_window
        request.limit_window = window if known is None else tightest((window, known))
        if window.remaining < 0:
            self._metrics.rate_limited(label.partition(" ")[0])
            raise RateLimited(f"More than {window.limit} {label}.", retry_after=window.reset)

    def _window(self, one: RequestLimit) -> LimitWindow:
        return self._storage.look(one.limit, one.key).after(passed=not one.breached)

    def _report_fallback(self, alone: bool) -> None:
        if alone != self._alone:
            self._alone = alone
            self._metrics.limiter_fallback(alone)
            log.warning("limits_per_process" if alone else "limits_shared")
