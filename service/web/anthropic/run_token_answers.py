"""Model calls with the token of a run: relayed as held, paid and kept steps of it."""

from __future__ import annotations

import orjson
from flask import Response

from service.auth.run_tokens import RunGrant
from service.errors import SlipwayError
from service.web.anthropic.errors import error_body
from service.web.anthropic.relayed_body import relayed_request
from service.web.current import services
from service.web.run_token_relay import relay


def relay_step(grant: RunGrant) -> Response:
    return relay(grant, relayed_request(needs_limit=True), _error_event)


def count(grant: RunGrant) -> int:
    """Count a prompt's tokens: free, so no hold bounds it and the rate of its user does."""
    asked, gateway = relayed_request(needs_limit=False), services().runs.gateway
    with gateway.take_place(grant.user_id):
        return gateway.count_tokens(grant, asked)


def _error_event(error: SlipwayError, request_id: str) -> bytes:
    return b"event: error\ndata: %b\n\n" % orjson.dumps(error_body(error, request_id))
