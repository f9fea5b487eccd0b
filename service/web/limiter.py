"""Flask-Limiter with our names, keys and storage: what counts, and what is left."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NoReturn, cast

import redis
from flask import Flask, g, request
from flask_limiter import Limiter, RateLimitExceeded, RequestLimit
from limits import parse, parse_many

from service.auth.revocation import COMPLETE
from service.auth.revocation import KEY as DISTRUSTED
from service.errors import RateLimited
from service.usage.limits import SCHEME, STRATEGY, RedisWindows, Window
from service.web.guards import confirm_login, current_caller, login_to_confirm, services

log = logging.getLogger("slipway.limits")
FAILURES_PER_NAME = "20/15 minutes"  # refused log-ins for one name, from wherever; more are not looked at


class Limits:
    """One application's limits: Flask-Limiter decides and falls back, with our names, keys and storage."""

    def __init__(self, app: Flask) -> None:
        built = app.extensions["slipway"]
        self._metrics = built.metrics
        parts: Any = {
            "speed": built.speed,
            "told": self._told,
        }  # Flask-Limiter says only str and int, passes all
        self._limiter = Limiter(
            _address,
            storage_uri=f"{SCHEME}://",
            storage_options=parts,
            strategy=STRATEGY,
            in_memory_fallback_enabled=True,
        )
        # Known to the app already, it hangs no hooks into every request: limits are counted behind guards.
        app.extensions["limiter"] = {self._limiter}
        self._limiter.init_app(app)
        self._shared = True  # whether Redis counts, and not this process
        shared = self._limiter.shared_limit
        self._count_run = shared(_run_rate, "runs", key_func=_user)(_runs)
        self._count_agent = shared(_agent_rate, _agent_scope, key_func=_user)(_agent)
        self._count_login = shared(built.settings.limit_login, "login", key_func=_address)(_login)

    def runs(self) -> None:
        """Raises `InvalidToken` for a log-in that has ended, over the limit too, and does not count it."""
        storage = cast(RedisWindows, self._limiter.storage)
        if (family := login_to_confirm()) is None:
            self._count("runs", "runs", _run_rate(), self._count_run)
            return
        storage.also_read(DISTRUSTED, (family, COMPLETE))
        try:
            self._count("runs", "runs", _run_rate(), self._count_run)
        finally:
            window = g.pop("limit_window", None)
            confirm_login(storage.seen())
            if window is not None:
                g.limit_window = window

    def agent(self) -> None:
        self._count("agent", _agent_scope(""), _agent_rate(), self._count_agent)

    def login(self) -> None:
        self._count_by_flask("login", self._count_login)

    def failures(self, username: str, *, add: bool) -> bool:
        """Whether this name may still be tried; `add` counts one more refusal."""
        name = hashlib.sha256(username.encode()).hexdigest()[:32]
        strategy = self._limiter.limiter
        try:
            return (strategy.hit if add else strategy.test)(_FAILURES, "login_failures", name)
        except redis.RedisError:
            return True  # the limit per address holds, in this process

    def _count(self, action: str, scope: str, rate: str, in_memory: Callable[[], None]) -> None:
        """Count a call of this user's, by Flask-Limiter's strategy alone: what else it does costs more than the count.

        Without Redis by way of Flask-Limiter, which falls back and comes back. Raises `RateLimited` over the limit.
        """
        if not self._shared:
            return self._count_by_flask(action, in_memory)
        try:
            windows, passed = self._hit(rate, scope)
        except redis.RedisError:
            return self._count_by_flask(action, in_memory)
        if not passed:
            self._refuse(action, windows[-1]._replace(remaining=0))
        self._tell(windows)
        return None

    def _hit(self, rate: str, scope: str) -> tuple[list[Window], bool]:
        """Count one call against each part of a rate, until one is full."""
        storage, windows = cast(RedisWindows, self._limiter.storage), []
        for item in _parsed(rate):
            key = (_user(), scope)
            passed = self._limiter.limiter.hit(item, *key)
            window = storage.window(item, item.key_for(*key))
            assert window is not None  # it was counted just now, by this thread
            windows.append(window)
            if not passed:
                return windows, False
        return windows, True

    def _count_by_flask(self, action: str, count: Callable[[], None]) -> None:
        """Raises `RateLimited` over the limit."""
        try:
            try:
                count()
            except redis.RedisError:
                # Of threads that fail at once only the first falls back in Flask-Limiter; the others try again.
                count()
        except RateLimitExceeded:
            self._refuse(action, min(self._windows(refused=True), key=_left))
        self._tell(self._windows(refused=False))

    def _windows(self, *, refused: bool) -> list[Window]:
        return [self._window(limit) for limit in self._limiter.current_limits if limit.breached == refused]

    def _refuse(self, action: str, window: Window) -> NoReturn:
        g.limit_window = window
        self._metrics.rate_limited(action)
        raise RateLimited(f"More than {window.limit} {action} calls.", retry_after=window.reset) from None

    def _tell(self, windows: list[Window]) -> None:
        """Keep the window that leaves least for the answer's headers."""
        g.limit_window = min([*windows, g.limit_window] if "limit_window" in g else windows, key=_left)

    def _window(self, limit: RequestLimit) -> Window:
        storage = cast(RedisWindows, self._limiter.storage)
        found = storage.window(limit.limit, limit.key)
        if found is None:  # counted in this process's memory
            found = Window(limit.limit.amount, limit.remaining, max(0.0, limit.reset_at - time.time()))
        return found._replace(remaining=0) if limit.breached else found

    def _told(self, reachable: bool) -> None:
        self._shared = reachable
        self._metrics.limiter_fallback(not reachable)
        log.warning("limits_shared" if reachable else "limits_per_process")


_FAILURES = parse(FAILURES_PER_NAME)
_parsed = cache(parse_many)


def _left(window: Window) -> int:
    return window.remaining


def _address() -> str:
    return request.remote_addr or "unknown"


def _user() -> str:
    return current_caller().user_id


# Flask-Limiter also asks for these rates before the request has reached its guard; it counts nothing then.
def _run_rate() -> str:
    return (g.caller.limit_runs if "caller" in g else None) or services().settings.limit_runs


def _agent_rate() -> str:
    return (g.limited_agent.limits.rate if "limited_agent" in g else None) or ""


def _agent_scope(_endpoint: str) -> str:
    return f"agent:{g.limited_agent.id}" if "limited_agent" in g else "agent"


# Flask-Limiter hangs a limit on a function; these are the functions, one for each action.
def _runs() -> None: ...


def _agent() -> None: ...


def _login() -> None: ...
