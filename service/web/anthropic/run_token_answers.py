"""Model calls with the token of a run: relayed as held, paid and kept steps of it."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
from flask import Response

from service.auth.run_tokens import RunGrant
from service.errors import SlipwayError
from service.runs.bulkhead import Permit
from service.runs.gateway_calls import Relayed
from service.types import usd
from service.web.anthropic.errors import error_body
from service.web.anthropic.relayed_body import relayed_request
from service.web.current import services
from service.web.relaying import hang_up
from service.web.streaming import HEADERS


def relay_step(grant: RunGrant) -> Response:
    asked, gateway = relayed_request(needs_limit=True), services().runs.gateway
    place = gateway.take_place(grant.user_id)
    try:
        relayed = gateway.relay(grant, asked, hang_up())
    except BaseException:
        place.give()
        raise
    return _streamed(relayed, place) if asked.stream else _whole(relayed, place)


def count(grant: RunGrant) -> int:
    """Count a prompt's tokens: free, so no hold bounds it and the rate of its user does."""
    asked, gateway = relayed_request(needs_limit=False), services().runs.gateway
    with gateway.take_place(grant.user_id):
        return gateway.count_tokens(grant, asked)


def _whole(relayed: Relayed, place: Permit) -> Response:
    with place:
        response = Response(b"".join(relayed.pieces), mimetype="application/json")
    return _with_cost(response, relayed)


def _streamed(relayed: Relayed, place: Permit) -> Response:
    """Stream the answer; a failure after its beginning is an event of the stream."""

    def body() -> Iterator[bytes]:
        try:
            yield from relayed.pieces
        except SlipwayError as error:
            yield b"event: error\ndata: %b\n\n" % orjson.dumps(error_body(error))
        finally:
            relayed.close()
            place.give()

    response = Response(body(), mimetype="text/event-stream", headers=HEADERS)
    response.call_on_close(place.give)
    response.call_on_close(relayed.close)  # also where its body was never asked for
    return _with_cost(response, relayed) if relayed.kept else response


def _with_cost(response: Response, relayed: Relayed) -> Response:
    response.headers["X-Cost-USD"] = usd(relayed.cost_nano)
    if relayed.kept:
        response.headers["Idempotency-Replayed"] = "true"
    return response
