"""Rate limits on views, by Flask-Limiter over our Redis: per user on calls, per address on log-ins.

A guard counts reads and writes by itself. Order on a view that starts a run: guard, limit, view. Without Redis each
process counts for itself, and says so in a metric. The look at whether the log-in has ended goes in the same round
trip as the count, and comes before it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Literal, TypeVar, cast

from flask import Flask, Response

from service.auth.users import network_of
from service.errors import RateLimited
from service.usage.limiter_storage import LimitWindow
from service.usage.rate_limits import SharedRateLimit
from service.web.current import add_headers, application, asked, own
from service.web.guards import current_caller, made_up, services
from service.web.limiter import Limits
from service.web.problems import problem_response

V = TypeVar("V", bound=Callable[..., Any])
Action = Literal["invoke", "stream", "task"]


def install(app: Flask) -> None:
    app.extensions["slipway_limits"] = Limits(app)
    app.after_request(_headers)
    app.after_request(_refused)


def limit_runs(view: V) -> V:
    """Count this call against its user's limit, and against the agent's own where the route names one."""

    @wraps(view)
    def limited(*args: Any, **kwargs: Any) -> Any:
        _limits().runs()
        if "agent" in kwargs:
            limit_agent(kwargs["agent"])
        return view(*args, **kwargs)

    limited.__confirms__ = True  # type: ignore[attr-defined]
    return cast(V, limited)


def limit_agent(agent: str) -> None:
    """Count this call against the agent's own limit per user, for doors that find the agent in the body."""
    definition = services().catalog.agents.get(agent)
    if definition is not None and definition.limits.rate:
        own().limited_agent = definition
        _limits().agent()


def limit_action(action: Action) -> Callable[[V], V]:
    """Count this call against its user's limit of this kind of call, and look whether tokens are left for a run."""

    def decorate(view: V) -> V:
        @wraps(view)
        def limited(*args: Any, **kwargs: Any) -> Any:
            count_action(action)
            return view(*args, **kwargs)

        return cast(V, limited)

    return decorate


def count_action(action: Action) -> None:
    """The same, for doors that find in the body what kind of call it is. Raises `RateLimited`."""
    rate_limits, user_id = services().rate_limits, current_caller().user_id
    kind: SharedRateLimit = getattr(rate_limits, action)
    _within(kind.take(user_id), f"{action} calls")
    _within(rate_limits.tokens.look(user_id), "tokens")


def limit_session(session_id: str | None) -> None:
    """Count this turn against its session's limit. Raises `RateLimited`.

    By user too: only its owner's turns start, and nobody else's attempts may use the limit up.
    """
    if session_id is not None:
        user_id = current_caller().user_id
        _within(services().rate_limits.session.take(f"{user_id}:{session_id}"), "turns of this session")


def limit_refresh(user_id: str) -> None:
    """Count a refresh against its user's limit. Raises `RateLimited`."""
    _within(services().rate_limits.refresh.take(user_id), "refresh calls")


def _within(window: LimitWindow | None, what: str) -> None:
    """Keep the window for the answer's headers where it is the tightest. Raises `RateLimited` when it is full."""
    if window is None:
        return
    ours = own()
    told: LimitWindow | None = ours.get("limit_window")
    if told is None or window.remaining / window.limit < told.remaining / told.limit:
        ours.limit_window = window._replace(remaining=max(0, window.remaining))
    if window.remaining < 0:
        services().metrics.rate_limited(what.partition(" ")[0])
        raise RateLimited(f"More than {window.limit} {what}.", retry_after=window.reset)


def limit_login(view: V) -> V:
    """Count this call against its address's limit of log-ins."""

    @wraps(view)
    def limited(*args: Any, **kwargs: Any) -> Any:
        _limits().login()
        return view(*args, **kwargs)

    return cast(V, limited)


def _limits() -> Limits:
    limits: Limits = application().extensions["slipway_limits"]
    return limits


def _refused(response: Response) -> Response:
    """Answer 429 to made-up keys and tokens from an address that has sent too many of them.

    Right ones from there are not counted: neighbours behind one address are not kept out.
    """
    if response.status_code != 401 or not made_up():
        return response
    window = services().rate_limits.refused.take(network_of(asked().remote_addr or "unknown"))
    if window is None or window.remaining >= 0:
        return response
    services().metrics.rate_limited("refused")
    return problem_response(
        RateLimited("Too many made-up keys or tokens from this address.", retry_after=window.reset)
    )


def _headers(response: Response) -> Response:
    window: LimitWindow | None = own().get("limit_window")
    if window is not None:
        add_headers(
            response,
            ("RateLimit-Limit", str(window.limit)),
            ("RateLimit-Remaining", str(window.remaining)),
            ("RateLimit-Reset", str(max(1, round(window.reset + 0.5)))),  # seconds from now
        )
    return response
