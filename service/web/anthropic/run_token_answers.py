"""Model calls with the token of a run: relayed as held, paid and kept steps of it."""

from __future__ import annotations

from flask import Response

from service.auth.run_tokens import RunGrant
from service.web.anthropic.errors import error_body, error_event
from service.web.anthropic.relayed_body import relayed_request
from service.web.current import services
from service.web.run_token_relay import relay


def relay_step(grant: RunGrant) -> Response:
    return relay(grant, relayed_request(needs_limit=True), lambda *told: error_event(error_body(*told)))


def count(grant: RunGrant) -> int:
    """Count a prompt's tokens: free, so no hold bounds it and the rate of its user does."""
    asked, gateway = relayed_request(needs_limit=False), services().runs.gateway
    with gateway.take_place(grant.user_id):
        return gateway.count_tokens(grant, asked)
