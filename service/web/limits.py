"""Rate limits, by Flask-Limiter over Redis: per user on calls and runs, per address on log-ins.

Called by `service.web.admission`. Without Redis each process counts for itself, as a metric shows. The limits of an
authenticated request are counted in its trip, after the check for a revoked log-in.
"""

from __future__ import annotations

from functools import partial

from flask import Flask, Response

from service.auth.login_throttle import network_of
from service.errors import RateLimited
from service.types import Action
from service.web.current import Request, current
from service.web.limiter import Limit, Limits
from service.web.problems import problem_response


def install(app: Flask) -> None:
    app.extensions["slipway_limits"] = Limits(app)


# Those from here to `limit_session` add to the request's trip, which raises `RateLimited` when it is sent.
def limit_call(request: Request) -> None:
    """Count this request as a read or a write."""
    settings = request.services.settings
    reads = request.method in ("GET", "HEAD", "OPTIONS")
    kind, rate = ("read", settings.limit_reads) if reads else ("write", settings.limit_writes)
    _limits(request).add(request, Limit(f"{kind} calls", rate, f"{kind}s", request.caller.user_id))


def limit_end(request: Request) -> None:
    """Count this request by its log-in or key, for each route, at the rate of writes.

    Other calls do not count, nor other log-ins: whatever a stolen token has used up, its owner can end things.
    """
    caller = request.caller
    credential = caller.key_id or caller.family or caller.user_id
    rate = request.services.settings.limit_writes
    key = f"{request.endpoint}:{credential}"
    _limits(request).add(request, Limit("calls of this kind", rate, "ends", key))


def limit_run(request: Request, agent: str | None = None) -> None:
    """Count a run against the limits of its user and its key, and its agent's own.

    `agent` is None if it is named in the body: `admit` then counts it, once the body is read.
    """
    caller = request.caller
    rate = caller.limit_runs or request.services.settings.limit_runs
    _limits(request).add(request, Limit("runs calls", rate, "runs", caller.user_id))
    if caller.key_limit_runs is not None:
        of_key = Limit("runs calls of this key", caller.key_limit_runs, "runs", caller.key_id or "")
        _limits(request).add(request, of_key)
    if agent is not None:
        limit_agent(request, agent)


def limit_agent(request: Request, agent: str) -> None:
    """Count a run against the agent's own limit per user."""
    definition = request.services.agents.agents.get(agent)
    if definition is not None:
        limit = Limit("agent calls", definition.limits.rate or "", f"agent:{agent}", request.caller.user_id)
        _limits(request).add(request, limit)


def limit_action(request: Request, action: Action) -> None:
    """Count a run by the kind of call, and check that its user has tokens left."""
    limits, services, user_id = _limits(request), request.services, request.caller.user_id
    rate = getattr(services.settings, f"limit_{action}")
    limits.add(request, Limit(f"{action} calls", rate, action, user_id))
    read = partial(limits.within, request, label="tokens")
    request.trip.add(*services.usage.rate_limits.tokens.calls(user_id, read))


def limit_session(request: Request, session_id: str | None) -> None:
    """Count this turn against its session's limit.

    Per user as well: only the owner can start turns, and attempts of others must not use up the limit.
    """
    if session_id is not None:
        key, rate = f"{request.caller.user_id}:{session_id}", request.services.settings.limit_session
        _limits(request).add(request, Limit("turns of this session", rate, "session", key))


def limit_refresh(user_id: str) -> None:
    """Count a refresh against its user's limit. Raises `RateLimited`."""
    request = current()
    rate = request.services.settings.limit_writes
    _limits(request).count(request, Limit("refresh calls", rate, "refresh", user_id))


def limit_login() -> None:
    """Count a log-in against its address's limit. Raises `RateLimited`."""
    request = current()
    rate = request.services.settings.limit_login
    _limits(request).count(request, Limit("login calls", rate, "login", _address(request)))


def _limits(request: Request) -> Limits:
    limits: Limits = request.extensions["slipway_limits"]
    return limits


def _address(request: Request) -> str:
    return network_of(request.remote_addr or "unknown")


def refused(request: Request, response: Response) -> Response:
    """Answer 429 in place of the refusal of a forged key or token, as `limit_refused` says."""
    try:
        limit_refused(request)
    except RateLimited as error:
        return problem_response(error)
    return response


def limit_refused(request: Request) -> None:
    """Count a forged key or token against the limit of its address. Raises `RateLimited`.

    Valid ones are not counted: neighbours behind one address are not locked out.
    """
    if not request.made_up:
        return
    rate = request.services.settings.limit_refused
    window = _limits(request).take(Limit("refused", rate, "refused", _address(request)))
    if window is not None and window.remaining < 0:
        request.services.infra.metrics.rate_limited("refused")
        raise RateLimited("Too many made-up keys or tokens from this address.", retry_after=window.reset)


def add_headers(request: Request, response: Response) -> None:
    window = request.limit_window
    if window is not None:
        headers = response.headers
        headers.add("RateLimit-Limit", window.limit)
        headers.add("RateLimit-Remaining", max(0, window.remaining))
        headers.add("RateLimit-Reset", max(1, round(window.reset + 0.5)))  # seconds from now
