"""Messages API, Anthropic's dialect: agents as models; and with the token of a run, models themselves.

Those of the price table are asked as they are; the call is a held, paid and kept step of the run.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Annotated, Any, Literal

import orjson
from flask import Blueprint, Response, request
from pydantic import ConfigDict, Field

from service import errors
from service.auth.run_tokens import RunGrant
from service.errors import SlipwayError, fault
from service.llm.relay import RelayedRequest
from service.runs.bulkhead import Permit
from service.runs.gateway_calls import Relayed
from service.text import exact_json
from service.types import usd
from service.usage.prices import today
from service.web.admission import guard
from service.web.anthropic.agent_answers import answer
from service.web.anthropic.errors import MAY_FAIL, ErrorAnswer, error_body, error_response, status_of
from service.web.body import raw_json
from service.web.current import current, services
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.run_responses import RUN_ERRORS
from service.web.schemas import Body, Shape
from service.web.streaming import HEADERS
from service.web.validation import validate

blueprint = Blueprint("messages", __name__)
WITHOUT_EFFECT = ("temperature", "top_p", "top_k")  # the models take them no longer
# Fields that add nothing to the prompt, or whose own bound is known. Any other may be a part of it, and counts as one.
NO_PROMPT = frozenset(
    {
        *("model", "messages", "system", "tools", "max_tokens", "stream", "metadata", "stop_sequences"),
        *("service_tier", "thinking", "tool_choice", "cache_control", *WITHOUT_EFFECT),
    }
)
# Fields that change what a call costs in a way that its hold does not cover, or make the provider call others.
NOT_OFFERED = (
    "container",
    "context_management",
    "fallbacks",
    "inference_geo",
    "mcp_servers",
    "speed",
    "thread",
)
_BETAS = re.compile(r"[A-Za-z0-9._ ,-]{1,1000}")
_EVENTS = ", ".join(
    f"`{name}`"
    for name in (
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "ping", "error"),
    )
)


class Turn(Body):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]]


class MessagesBody(Body):
    """Body of the Messages API; fields that are not named here reach the model unchanged."""

    model_config = ConfigDict(extra="allow")

    model: Annotated[str, Field(min_length=1, max_length=128)]
    messages: Annotated[list[Turn], Field(min_length=1, max_length=100_000)]
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    system: str | list[dict[str, Any]] = ""
    tools: list[dict[str, Any]] = Field(default_factory=list)
    stream: bool = False


class Answered(Shape):
    """Answer of the model; further fields are its own."""

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    usage: dict[str, Any]


class Counted(Shape):
    input_tokens: int


@blueprint.post("/v1/messages")
@api(
    "Ask an agent as a model; or a model, as a step of a run",
    body=MessagesBody,
    returns={200: Answered},
    errors=(*RUN_ERRORS, *MAY_FAIL),
    tag="Messages API",
    stream="text/event-stream",
    events=_EVENTS,
    headers=("X-Cost-USD", "Idempotency-Replayed", "request-id"),
    error=ErrorAnswer,
    status=status_of,
)
@guard(counts="step")
def create() -> Response:
    """Answer by an agent; or, with the token of a run, relay a model's answer."""
    return answer() if current().grant is None else _relay()


def _relay() -> Response:
    grant, asked, gateway = _grant(), _asked(needs_limit=True), services().runs.gateway
    place = gateway.take_place(grant.user_id)
    try:
        relayed = gateway.relay(grant, asked, _hang_up())
    except BaseException:
        place.give()
        raise
    return _streamed(relayed, place) if asked.stream else _whole(relayed, place)


@blueprint.post("/v1/messages/count_tokens")
@api(
    "Count the tokens of a prompt",
    body=MessagesBody,
    returns={200: Counted},
    errors=MAY_FAIL,
    tag="Messages API",
    headers=("request-id",),
    error=ErrorAnswer,
    status=status_of,
)
@guard()
def count_tokens() -> Response:
    """Count a prompt's tokens: free, so no hold bounds it and the rate of its user does."""
    grant, asked, gateway = _grant(), _asked(needs_limit=False), services().runs.gateway
    with gateway.take_place(grant.user_id):
        return _json({"input_tokens": gateway.count_tokens(grant, asked)})


@error_shape(blueprint, "/v1/messages")
def refused(error: SlipwayError) -> Response:
    return error_response(error)


def _grant() -> RunGrant:
    """Return what the request's token grants. Raises `NotFound` for any other credential."""
    grant = current().grant
    if grant is None:
        raise errors.NotFound("This door takes tokens of runs only, which remote agents are given.")
    return grant


def _asked(*, needs_limit: bool) -> RelayedRequest:
    """Read the body and what of it bounds the call. Raises `Invalid`, `PriceUnknown` and the errors of `raw_json`.

    The model gets what was read here, written anew: of a name that comes twice it cannot see another value.
    """
    value = raw_json(services().settings.door_body_limit)
    body = validate(MessagesBody, value)
    if needs_limit and "max_tokens" not in value:
        raise fault("/max_tokens", "Field required")
    _refuse_not_offered(value, body)
    services().usage.prices.price(body.model, today())
    sent = {name: part for name, part in value.items() if name not in WITHOUT_EFFECT}
    return RelayedRequest(
        model=body.model,
        messages=[turn.model_dump() for turn in body.messages],
        max_tokens=body.max_tokens,
        system=body.system,
        tools=body.tools,
        json_schema={name: part for name, part in sent.items() if name not in NO_PROMPT} or None,
        stream=body.stream,
        body=exact_json.dumps(sent),
        betas=_betas(),
    )


def _refuse_not_offered(value: dict[str, Any], body: MessagesBody) -> None:
    """Refuse what the hold of a call does not cover. Raises `Invalid`."""
    for name in NOT_OFFERED:
        if value.get(name) is not None:
            raise fault(f"/{name}", "is not offered here")
    if value.get("service_tier", "standard_only") not in ("auto", "standard_only"):
        raise fault("/service_tier", "must be auto or standard_only")
    for number, tool in enumerate(body.tools):
        if tool.get("type", "custom") not in (None, "custom"):
            raise fault(f"/tools/{number}/type", "tools that the provider runs are not offered here")


def _betas() -> str:
    betas: str = current().headers.get("anthropic-beta", "")
    if betas and _BETAS.fullmatch(betas) is None:
        raise fault("", "The header anthropic-beta is not a list of names")
    return betas


def _whole(relayed: Relayed, place: Permit) -> Response:
    with place:
        response = _json(b"".join(relayed.pieces))
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
    return _with_cost(response, relayed) if relayed.kept else _named(response)


def _hang_up() -> Callable[[], None]:
    """Return what ends the connection of this request, whatever its thread does."""
    sock = request.environ.get("gunicorn.socket")
    if not isinstance(sock, socket.socket):
        return lambda: None

    def hang_up() -> None:
        with suppress(OSError):  # closed already
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    return hang_up


def _with_cost(response: Response, relayed: Relayed) -> Response:
    response.headers["X-Cost-USD"] = usd(relayed.cost_nano)
    if relayed.kept:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _json(body: bytes | dict[str, Any]) -> Response:
    sent = body if isinstance(body, bytes) else orjson.dumps(body)
    return _named(Response(sent, mimetype="application/json"))


def _named(response: Response) -> Response:
    response.headers["request-id"] = current().id
    return response
