"""Start of a turn of a WebSocket: admission as at every door, in the session of the connection."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from service.auth.permissions import PERMISSIONS
from service.errors import NotFound, fault
from service.runs.start import Stream
from service.types import RunRequest
from service.web.admission import admit, allowed_agent, guard
from service.web.body import raw_json
from service.web.current import current, services
from service.web.run_body import RunBody
from service.web.sockets.turns import Turn
from service.web.validation import parse, validate

KEY = "idempotency_key"  # of a message; a header of the handshake would be every turn's


@dataclass(slots=True)
class SessionOfConnection:
    """Session of the turns without a `session_id`, begun by the first of them."""

    id: str | None = None


@guard()
def enter(*, agent: str) -> str:
    """Admit a connection; return the id of its user. Raises as `guard`, and `NotFound`."""
    allowed_agent(agent)
    return current().caller.user_id


def start(agent: str, turn: Turn, session: SessionOfConnection) -> Stream:
    """Start the run of a turn. Raises as `POST /v1/agents/{agent}/stream`."""
    request, body = current(), turn.body
    if (key := body.get(KEY)) is not None:
        body = {name: value for name, value in body.items() if name != KEY}
    if not isinstance(key, str | None):
        raise fault(f"/{KEY}", "must be a string")
    request.body, request.limit_window = body, None
    sent: dict[str, Any] = {"CONTENT_LENGTH": str(turn.size), "HTTP_IDEMPOTENCY_KEY": key}
    request.environ.update(sent)
    if key is None:
        del request.environ["HTTP_IDEMPOTENCY_KEY"]
    try:
        started, batches = _start(agent=agent, session=session)
    except NotFound:
        session.id = None  # it may have been deleted: the next turn begins another
        raise
    return started, batches


@guard(counts="run")
def _start(*, agent: str, session: SessionOfConnection) -> Stream:
    joins = "session_id" not in raw_json()  # not `null` either; admission lets the body go
    admitted = admit("stream", partial(_question, agent, session if joins else None))
    asked = admitted.request
    if asked.session_id is None and joins:
        PERMISSIONS["POST /v1/sessions"].check(admitted.caller)
        admitted.trip.send()  # no session for a turn that is refused
        session.id = services().sessions.begin_for(admitted.caller, agent)
        admitted = admitted._replace(request=replace(asked, session_id=session.id))
    return services().runs.start.stream(*admitted)


def _question(agent: str, joined: SessionOfConnection | None) -> RunRequest:
    if joined is not None and joined.id is not None:
        return validate(RunBody, {**raw_json(), "session_id": joined.id}).request(agent, "socket")
    return parse(RunBody).request(agent, "socket")
