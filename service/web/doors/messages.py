"""Messages API, Anthropic's dialect: agents as models, and models themselves.

With a key, each call is a run; with the token of a run, it is a held, paid and kept step of that run.
"""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response

from service.errors import SlipwayError
from service.web.admission import guard
from service.web.anthropic import model_answers, run_token_answers
from service.web.anthropic.errors import MAY_FAIL, ErrorAnswer, error_response, status_of
from service.web.anthropic.relayed_body import MessagesBody
from service.web.current import current
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.run_responses import RUN_ERRORS
from service.web.schemas import Shape, json_response

blueprint = Blueprint("messages", __name__)
_EVENTS = ", ".join(
    f"`{name}`"
    for name in (
        *("message_start", "content_block_start", "content_block_delta", "content_block_stop"),
        *("message_delta", "message_stop", "ping", "error"),
    )
)


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
    "Ask an agent as a model, or a model",
    body=MessagesBody,
    returns={200: Answered},
    errors=(*RUN_ERRORS, *MAY_FAIL),
    tag="Messages API",
    stream="text/event-stream",
    events=_EVENTS,
    headers=("X-Cache", "X-Cost-USD", "Idempotency-Replayed", "request-id"),
    error=ErrorAnswer,
    status=status_of,
)
@guard(counts="step")
def create() -> Response:
    """Answer by an agent or a model; or, with the token of a run, relay a model's answer as a step of it."""
    grant = current().grant
    return _named(model_answers.answer() if grant is None else run_token_answers.relay_step(grant))


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
    """Count a prompt's tokens, which is free."""
    grant = current().grant
    counted = model_answers.count() if grant is None else run_token_answers.count(grant)
    return _named(json_response({"input_tokens": counted}))


@error_shape(blueprint, "/v1/messages")
def refused(error: SlipwayError) -> Response:
    return error_response(error)


def _named(response: Response) -> Response:
    response.headers["request-id"] = current().id
    return response
