"""Rate limits, by Flask-Limiter over Redis: per user on calls and runs, per address on log-ins.

Called by `service.web.admission`. Without Redis each process counts for itself, as a metric shows. The limits of an
authenticated request are counted in its trip, after the check for a revoked log-in.
"""

from __future__ import annotations

from functools import partial
from typing import Literal

from flask import Flask, Response, current_app, g, request

from service.auth.users import network_of
from service.errors import RateLimited
from service.usage.rate_limits import LimitWindow
from service.web.authentication import made_up
from service.web.current import current_caller, current_trip, services
from service.web.limiter import Limit, Limits
from service.web.problems import problem_response

Action = Literal["invoke", "stream", "task"]


def install(app: Flask) -> None:
    app.extensions["slipway_limits"] = Limits(app)
    app.after_request(_headers)
    app.after_request(_refused)


# Those from here to `limit_session` add to the request's trip, which raises `RateLimited` when it is sent.
def limit_call() -> None:
    """Count this request as a read or a write."""
    settings = services().settings
    reads = request.method in ("GET", "HEAD", "OPTIONS")
    kind, rate = ("read", settings.limit_reads) if reads else ("write", settings.limit_writes)
    _add(Limit(f"{kind} calls", rate, f"{kind}s", current_caller().user_id))


def limit_run(agent: str | None = None) -> None:
    """Count a run against its user's limit and its agent's own.

    `agent` is None if it is named in the body: `admit` then counts it, once the body is read.
    """
    caller = current_caller()
    rate = caller.limit_runs or services().settings.limit_runs
    _add(Limit("runs calls", rate, "runs", caller.user_id))
    if agent is not None:
        limit_agent(agent)


def limit_agent(agent: str) -> None:
    """Count a run against the agent's own limit per user."""
    definition = services().agents.agents.get(agent)
    if definition is not None:
        rate = definition.limits.rate or ""
        _add(Limit("agent calls", rate, f"agent:{agent}", current_caller().user_id))


def limit_action(action: Action) -> None:
    """Count a run by the kind of call, and check that its user has tokens left."""
    user_id, rate = current_caller().user_id, getattr(services().settings, f"limit_{action}")
    _add(Limit(f"{action} calls", rate, action, user_id))
    read = partial(_limits().within, label="tokens")
    current_trip().add(*services().usage.rate_limits.tokens.calls(user_id, read))


def limit_session(session_id: str | None) -> None:
    """Count this turn against its session's limit.

    Per user as well: only the owner can start turns, and attempts of others must not use up the limit.
    """
    if session_id is not None:
        key = f"{current_caller().user_id}:{session_id}"
        _add(Limit("turns of this session", services().settings.limit_session, "session", key))


def limit_refresh(user_id: str) -> None:
    """Count a refresh against its user's limit. Raises `RateLimited`."""
    _limits().count(Limit("refresh calls", services().settings.limit_writes, "refresh", user_id))


def limit_login() -> None:
    """Count a log-in against its address's limit. Raises `RateLimited`."""
    _limits().count(Limit("login calls", services().settings.limit_login, "login", _address()))


def _add(limit: Limit) -> None:
    _limits().add(current_trip(), limit)


def _limits() -> Limits:
    limits: Limits = current_app.extensions["slipway_limits"]
    return limits


def _address() -> str:
    return network_of(request.remote_addr or "unknown")


def _refused(response: Response) -> Response:
    """Answer 429 to forged keys and tokens from an address that has sent too many of them.

    Valid ones are not counted: neighbours behind one address are not locked out.
    """
    if not made_up():
        return response
    window = _limits().take(Limit("refused", services().settings.limit_refused, "refused", _address()))
    if window is None or window.remaining >= 0:
        return response
    services().infra.metrics.rate_limited("refused")
    return problem_response(
        RateLimited("Too many made-up keys or tokens from this address.", retry_after=window.reset)
    )


def _headers(response: Response) -> Response:
    window: LimitWindow | None = g.get("limit_window")
    if window is not None:
        seconds = max(1, round(window.reset + 0.5))  # from now
        left = max(0, window.remaining)
        response.headers.extend(
            {"RateLimit-Limit": window.limit, "RateLimit-Remaining": left, "RateLimit-Reset": seconds}
        )
    return response
