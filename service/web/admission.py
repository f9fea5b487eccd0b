"""Admission: authentication, rate limits, role and scope, agent, idempotency key; in one order for all routes.

1. `guard`, around every view that is not `public`: authenticate, check for a revoked log-in and count the call, then
role and scope. 2. `admit`, in every view that starts a run: limits of this kind of call and of tokens, the body, the
agent, its own limit if the path did not name it, the limit of its session, the idempotency key. 3. A place: a run takes
one in the bulkhead itself, if no cached answer was found (`service.runs.start`); a view that reads for long takes one
with `reading_place`.

Counts and checks in Redis wait in the request's trip: that of a run goes with its look-up in the answer cache. The trip
is sent before any other error is raised, so the order of errors is that of the checks.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar, cast

from service.audit.record import Action
from service.auth.permissions import PERMISSIONS, Permission, check_model, check_models, may_ask_model
from service.errors import Forbidden, NotFound, RateLimited, SlipwayError
from service.infra.redis_trip import Trip
from service.observe import logs
from service.runs.bulkhead import Permit
from service.runs.idempotency import Key
from service.store.visibility import AGENTS, allows
from service.text.suggest import did_you_mean
from service.types import Action as RunAction
from service.types import Caller, RunRequest, action_of
from service.usage.prices import ANTHROPIC
from service.web import limits
from service.web.authentication import identify
from service.web.current import Request, current, current_caller, services
from service.web.idempotency import idempotency_key

if TYPE_CHECKING:
    from service.agents.definitions import AgentDefinition

V = TypeVar("V", bound=Callable[..., Any])
UPSTREAM = "set OPENAI_API_KEY, or OPENAI_BASE_URL, on the server"
_SMALL_BODY = 65_536  # bytes; a larger one is not read before its call is known to pass
_ID = re.compile(r"(\w+:)?[a-z]{3}_[0-9a-z]{26}", re.ASCII)


class Admitted(NamedTuple):
    """Arguments of `RunStarter`, in its order, for a run that may start. The agent is `request.agent`."""

    caller: Caller
    request: RunRequest
    key: Key | None
    request_id: str
    trip: Trip


def admit(action: RunAction | None, read: Callable[[], RunRequest]) -> Admitted:
    """Admit a run, as far as its trip lets it pass. `read` parses the API's body.

    `action` is None at the doors for other clients, where the body tells it: then the run's door ends with it, and its
    agent may be a model.

    Raises `NotFound` for an agent that the caller may not use, `Forbidden` for one of whose models that holds,
    `Invalid`, and the errors of `read`.
    """
    request = current()
    if action is not None:
        limits.limit_action(request, action)
    length = request.environ.get("CONTENT_LENGTH")  # none if it is sent in chunks
    if not length or int(length) > _SMALL_BODY:
        request.trip.send()
    asked = read()
    if action is None:
        limits.limit_action(request, action_of(asked.door or ""))
    agent = allowed_agent(asked.agent) if action is not None else allowed_model(asked.agent)
    if agent.is_model and not asked.relayed and request.services.usage.prices.provider(agent.id) != ANTHROPIC:
        raise NotFound(f"{agent.id} is asked at /v1/chat/completions.")
    check_models(request.caller, agent.id, agent.models)
    if (request.view_args or {}).get("agent") != asked.agent:  # else `guard` has counted it
        limits.limit_agent(request, asked.agent)
    limits.limit_session(request, asked.session_id)
    admitted = Admitted(request.caller, asked, idempotency_key(request), request.id, request.trip)
    request.body = None  # it may be large, and is all in `asked` by now
    return admitted


def guard(*, counts: Literal["call", "run", "end", "step"] = "call") -> Callable[[V], V]:
    """Restrict a view to authenticated callers who meet the permission of its route (`service.auth.permissions`).

    `counts`: against LIMIT_READS or LIMIT_WRITES ("call"), or as a run against LIMIT_RUNS and its agent's own limit.
    "end" for views that end something: against LIMIT_WRITES for each log-in and view, as a stolen token at its limit
    must not keep its owner from using them. "step" for a model call of a run, which the run's own bounds
    limit; without its token as "run".

    Raises `Unauthenticated`, `InvalidToken`, `RateLimited` and `Forbidden`.
    """

    def wrap(view: V) -> V:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            request = current()
            caller = identify(request)
            request.check_again = _check_again
            logs.bind(user=caller.user_id)
            kind = "run" if counts == "step" and request.grant is None else counts
            if kind == "run":
                limits.limit_run(request, kwargs.get("agent"))
            elif kind == "end":
                limits.limit_end(request)
            elif kind == "call":
                limits.limit_call(request)
            if kind != "run":
                request.trip.send()
            try:
                _permission(request).check(caller)
                return view(*args, **kwargs)
            except SlipwayError as error:
                _record_refusal(request, error)
                raise
            finally:
                request.trip.send()

        return cast(V, guarded)

    return wrap


def _check_again(request: Request) -> None:
    """Repeat authentication and permission check. Raises `InvalidToken` and `Forbidden`."""
    waiting = request.trip
    identify(request)
    request.trip.send()
    request.trip = waiting
    _permission(request).check(request.caller)


def check_role() -> None:
    """Check the caller's role in a view whose permission is `found_first`. Raises `Forbidden`."""
    request = current()
    _permission(request).check_role(request.caller)


def _permission(request: Request) -> Permission:
    """Return the permission of the request's route. Raises `KeyError` for a route without one."""
    method = "GET" if request.method == "HEAD" else request.method
    return PERMISSIONS[f"{method} {request.url_rule}"]


def _record_refusal(request: Request, error: SlipwayError) -> None:
    """Record a call that was forbidden, and any other refusal of a change to what the audit tells of."""
    forbidden = isinstance(error, Forbidden)
    refused = error.status < 500 and not isinstance(error, RateLimited)
    if forbidden or (_permission(request).audited and refused and request.method not in ("GET", "HEAD")):
        action = Action.ACCESS_REFUSED if forbidden else Action.CHANGE_REFUSED
        route = f"route:{request.method} {request.url_rule}"
        named = [value for value in (request.view_args or {}).values() if _ID.fullmatch(str(value))]
        request.services.audit.refusals.record(action, route, code=error.code, named=named)


def public(view: V) -> V:
    """Mark a view as callable without authentication."""
    view.__public__ = True  # type: ignore[attr-defined]
    return view


def is_public(view: Callable[..., Any]) -> bool:
    return bool(getattr(view, "__public__", False))


def allowed_agent(name: str) -> AgentDefinition:
    """Return the current version of an agent. Raises `NotFound`, also if the caller may not use it."""
    request = current()
    agent = request.services.agents.agents.get(name)
    if agent is None or not allows(request.caller.scopes, AGENTS + name):
        raise NotFound(no_agent(name))
    return agent


def allowed_model(name: str) -> AgentDefinition:
    """Return an agent, as a model; without one of this name, the model itself. Raises `NotFound` and `Forbidden`."""
    request = current()
    agents = request.services.agents
    if (model := agents.model(name)) is not None:
        check_model(request.caller, model.id)
        return model
    try:
        return allowed_agent(name)
    except NotFound:
        if request.services.usage.prices.lacks_upstream(name):
            raise NotFound(f"There is no upstream for {name} here: {UPSTREAM}.") from None
        known = [agent.id for agent in allowed_agents()]
        known += [name for name in agents.models() if may_ask_model(request.caller, name)]
        raise NotFound(f"There is no agent or model named {name}{did_you_mean(name, known) or '.'}") from None


def allowed_agents() -> list[AgentDefinition]:
    """List the agents that the caller may use, sorted by name."""
    caller, agents = current_caller(), services().agents.agents
    return [agents[name] for name in sorted(agents) if allows(caller.scopes, AGENTS + name)]


def no_agent(name: str) -> str:
    """Build the problem detail for an unknown agent: where a model is asked, or a similar name the caller may use."""
    if services().agents.model(name) is not None:
        return f"{name} is a model, not an agent; POST /v1/chat/completions asks it."
    known = [agent.id for agent in allowed_agents()]
    return f"There is no agent named {name}{did_you_mean(name, known) or '.'}"


def reading_place() -> Permit:
    """Take a place for a request that holds its thread while a client reads; the view must release it.

    Raises `RateLimited` at the user's share of places, and `Overloaded`.
    """
    return services().runs.bulkhead.take(current_caller().user_id, reads=True)
