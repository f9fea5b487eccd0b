"""Relay of a model call with the token of a run, in the dialect of its door: the answer as it comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from flask import Response

from service.auth.run_tokens import RunGrant
from service.errors import SlipwayError
from service.llm.relay import RelayedRequest
from service.runs.bulkhead import Permit
from service.runs.gateway_call import Relayed
from service.types import usd
from service.web.current import current, services
from service.web.relaying import hang_up
from service.web.streaming import HEADERS

ErrorEvent = Callable[
    [SlipwayError, str], bytes
]  # writes the last event of a failed stream; given the request's id


def relay(grant: RunGrant, asked: RelayedRequest, event: ErrorEvent) -> Response:
    """Relay a call as a step of its run. Raises as `GatewayCalls.relay` does."""
    gateway = services().runs.gateway
    place = gateway.take_place(grant.user_id)
    try:
        relayed = gateway.relay(grant, asked, hang_up())
    except BaseException:
        place.give()
        raise
    return _streamed(relayed, place, event) if asked.stream else _whole(relayed, place)


def _whole(relayed: Relayed, place: Permit) -> Response:
    with place:
        response = Response(b"".join(relayed.pieces), mimetype="application/json")
    return _with_cost(response, relayed)


def _streamed(relayed: Relayed, place: Permit, event: ErrorEvent) -> Response:
    """Stream the answer; a failure after its beginning is an event of the stream."""
    request_id = current().id  # the request is over by the time its body is read

    def body() -> Iterator[bytes]:
        try:
            yield from relayed.pieces
        except SlipwayError as error:
            yield event(error, request_id)
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
