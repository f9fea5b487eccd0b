"""WebSocket: several turns with an agent over one connection, each event a message."""

from __future__ import annotations

from flask import Blueprint, Response, current_app, stream_with_context

from service import errors
from service.web.current import current
from service.web.openapi import api
from service.web.sockets.conversation import Conversation
from service.web.sockets.handshake import switch, wants_upgrade
from service.web.sockets.seats import Seats
from service.web.sockets.session_turns import enter

blueprint = Blueprint("socket", __name__)
_SEATS = "slipway_websockets"


@blueprint.get("/v1/agents/<agent>/chat")
@blueprint.get(
    "/v1/agents/<agent>/chat", websocket=True
)  # to Werkzeug, a request with `Upgrade` is of another rule
@api(
    "Converse with an agent over a WebSocket",
    returns={101: None},
    errors=(errors.BadRequest, errors.CrossSite, errors.UpgradeRequired, errors.Overloaded),
    tag="Agents",
)
def chat(agent: str) -> Response:
    """Upgrade a request that is authenticated, or one without credentials that signs in by its first message."""
    environ = current().environ
    if "HTTP_AUTHORIZATION" in environ or "HTTP_X_API_KEY" in environ or not wants_upgrade(current()):
        return _opened(agent, enter(agent=agent))
    return _opened(agent, None)


def _opened(agent: str, user_id: str | None) -> Response:
    """Open the connection in a seat. None: its user is still to sign in."""
    seats = _seats()
    conversation = Conversation(agent, seats, seats.take(user_id), signed_in=user_id is not None)
    try:
        response = switch(current(), stream_with_context(conversation.hold()))
    except BaseException:
        conversation.leave()
        raise
    response.call_on_close(conversation.leave)
    return response


def _seats() -> Seats:
    """Return the seats of this process."""
    services = current().services
    seats: Seats = current_app.extensions.setdefault(
        _SEATS, Seats(services.runs.bulkhead, services.infra.metrics)
    )
    return seats
