"""Flask-Limiter with our names, keys and storage: what counts, and what is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import redis
from flask import Flask, g, request
from flask_limiter import Limiter, RateLimitExceeded, RequestLimit
from limits import parse_many

from service.auth.revocation import COMPLETE
from service.auth.revocation import KEY as DISTRUSTED
from service.auth.users import network_of
from service.errors import RateLimited
from service.types import Caller
from service.usage.limiter_storage import SCHEME, STRATEGY, LimitWindow, RedisWindows
from service.web.current import current_caller, services
from service.web.guards import confirm_login, login_to_confirm

log = logging.getLogger("slipway.limits")
Also: TypeAlias = tuple[str, Sequence[str]]  # a hash in Redis, and fields of it to read by the way


class Limits:
    """One application's limits: Flask-Limiter decides and falls back, with our names, keys and storage."""

    def __init__(self, app: Flask) -> None:
        built = app.extensions["slipway"]
        self._metrics = built.infra.metrics
        parts: Any = {
            "redis_store": built.infra.redis_store,
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
        self._rates = {"read": built.settings.limit_reads, "write": built.settings.limit_writes}
        self._count_call = {
            action: shared(rate, f"{action}s", key_func=_user)(view)
            for (action, rate), view in zip(self._rates.items(), (_reads, _writes), strict=True)
            if rate
        }
        self._login_rate = rate = built.settings.limit_login
        self._count_login = shared(rate, "login", key_func=_address)(_login) if rate else None

    def runs(self) -> None:
        """Count a run; the rest as `call`."""
        if rate := _run_rate():
            self._confirm_and_count("runs", "runs", rate, self._count_run)
        else:
            confirm_login()

    def call(self) -> None:
        """Count what is no run, as a read or a write. Raises `RateLimited` over the limit.

        Raises `InvalidToken` for a log-in that has ended, over the limit too, and does not count it.
        """
        action = "read" if request.method in ("GET", "HEAD", "OPTIONS") else "write"
        if count := self._count_call.get(action):
            self._confirm_and_count(action, f"{action}s", self._rates[action], count)
        else:
            confirm_login()

    def _confirm_and_count(self, action: str, scope: str, rate: str, in_memory: Callable[[], None]) -> None:
        family = login_to_confirm()
        also = (DISTRUSTED, (family, COMPLETE)) if family is not None else None
        try:
            self._count(action, scope, rate, _user(), in_memory, also)
        finally:
            if login_to_confirm() is not None:  # Redis is away
                window = g.pop("limit_window", None)
                confirm_login()
                if window is not None:
                    g.limit_window = window

    def agent(self) -> None:
        self._count("agent", _agent_scope(""), _agent_rate(), _user(), self._count_agent)

    def login(self) -> None:
        if self._count_login is not None:
            self._count("login", "login", self._login_rate, _address(), self._count_login)

    def _count(
        self,
        action: str,
        scope: str,
        rate: str,
        whose: str,
        in_memory: Callable[[], None],
        also: Also | None = None,
    ) -> None:
        """Count a call, by Flask-Limiter's storage alone: what else it does costs more than the count.

        Without Redis by way of Flask-Limiter, in this process's memory. It tries Redis again after up to 32 seconds;
        here that is done with each call. Raises `RateLimited` over the limit.
        """
        try:
            windows, passed = self._hit(rate, scope, whose, also)
        except redis.RedisError:  # at once, while Redis is left alone
            return self._count_by_flask(action, in_memory)
        self._told(True)
        if not passed:
            self._refuse(action, windows[-1]._replace(remaining=0))
        return self._tell(windows)

    def _hit(self, rate: str, scope: str, whose: str, also: Also | None) -> tuple[list[LimitWindow], bool]:
        """Count one call against each part of a rate, until one is full. `also` is what confirms the log-in."""
        storage, windows = cast(RedisWindows, self._limiter.storage), []
        for part in _parts(rate, scope):
            passed, window, seen = storage.count(
                f"{part.before}{whose}{part.after}", part.limit, part.seconds, also
            )
            if also is not None:
                confirm_login(seen)
                also = None
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

    def _windows(self, *, refused: bool) -> list[LimitWindow]:
        return [self._window(limit) for limit in self._limiter.current_limits if limit.breached == refused]

    def _refuse(self, action: str, window: LimitWindow) -> NoReturn:
        g.limit_window = window
        self._metrics.rate_limited(action)
        raise RateLimited(f"More than {window.limit} {action} calls.", retry_after=window.reset) from None

    def _tell(self, windows: list[LimitWindow]) -> None:
        """Keep the window that leaves least for the answer's headers."""
        told = g.get("limit_window")
        g.limit_window = min(windows if told is None else [*windows, told], key=_left)

    def _window(self, limit: RequestLimit) -> LimitWindow:
        storage = cast(RedisWindows, self._limiter.storage)
        found = storage.window(limit.limit, limit.key)
        if found is None:  # counted in this process's memory
            found = LimitWindow(limit.limit.amount, limit.remaining, max(0.0, limit.reset_at - time.time()))
        return found._replace(remaining=0) if limit.breached else found

    def _told(self, reachable: bool) -> None:
        if reachable == self._shared:
            return
        self._shared = reachable
        self._metrics.limiter_fallback(not reachable)
        log.warning("limits_shared" if reachable else "limits_per_process")


class _Part(NamedTuple):
    """One part of a rate: how many calls in how many seconds, and the name of its counter around the user's id."""

    limit: int
    seconds: int
    before: str
    after: str


@cache
def _parts(rate: str, scope: str) -> list[_Part]:
    """Under the names that Flask-Limiter gives them, which takes longer than to count."""
    names = [(item, item.key_for("|", scope).split("|")) for item in parse_many(rate)]
    return [_Part(item.amount, item.get_expiry(), before, after) for item, (before, after) in names]


def _left(window: LimitWindow) -> int:
    return window.remaining


def _address() -> str:
    return network_of(request.remote_addr or "unknown")


def _user() -> str:
    return current_caller().user_id


# Flask-Limiter also asks for these rates before the request has reached its guard; it counts nothing then.
def _run_rate() -> str:
    caller: Caller | None = g.get("caller")
    return (caller.limit_runs if caller is not None else None) or services().settings.limit_runs


def _agent_rate() -> str:
    agent = g.get("limited_agent")
    return (agent.limits.rate if agent is not None else None) or ""


def _agent_scope(_endpoint: str) -> str:
    agent = g.get("limited_agent")
    return f"agent:{agent.id}" if agent is not None else "agent"


# Flask-Limiter hangs a limit on a function; these are the functions, one for each action.
def _runs() -> None: ...


def _reads() -> None: ...


def _writes() -> None: ...


def _agent() -> None: ...


def _login() -> None: ...
