"""Chat Completions: agents as the models of OpenAI's API, for its SDKs and the chat pages that are built on it."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

from flask import Blueprint, Response

from service.errors import SlipwayError
from service.types import RunRequest
from service.web.admission import Admitted, admit, guard
from service.web.current import current, services
from service.web.openai.chat_body import ChatBody
from service.web.openai.chat_lens import ChatLens, completion
from service.web.openai.errors import OpenAIError, error_response, problem_of_run, status_of
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.run_responses import RUN_ERRORS, folded, with_cache
from service.web.schemas import Shape
from service.web.streaming import stream_response
from service.web.validation import parse

blueprint = Blueprint("chat", __name__)


class Completion(Shape):
    """Answer of Chat Completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any]


@blueprint.post("/v1/chat/completions")
@api(
    "Ask an agent, as a model",
    body=ChatBody,
    returns={200: Completion},
    errors=RUN_ERRORS,
    tag="OpenAI",
    stream="text/event-stream",
    events="chunks without a name, then `[DONE]`",
    error=OpenAIError,
    status=status_of,
    headers=("X-Cache", "X-Cost-USD", "Idempotency-Replayed"),
)
@guard(counts="run")
def complete() -> Response:
    counts: list[bool] = []

    def question() -> RunRequest:
        body = parse(ChatBody, most=services().settings.door_body_limit)
        counts.append(body.counts_usage)
        return body.request()

    admitted = admit(None, question)
    streams = admitted.request.door == "chat/stream"
    return _streamed(admitted, counts_usage=counts[0]) if streams else _whole(admitted)


def _whole(admitted: Admitted) -> Response:
    started = services().runs.start.invoke(*admitted)
    run = started.run
    if run.error is None:
        return folded(started, completion(run, run.result or {}))
    body, status, headers = problem_of_run(run.error)
    response = folded(started, body, error_type="application/json")
    response.status_code = status
    response.headers.update(headers)
    return response


def _streamed(admitted: Admitted, *, counts_usage: bool) -> Response:
    started, batches = services().runs.start.stream(*admitted)
    current().begun(admitted.request)
    on_disconnect = partial(services().runs.cancellation.client_gone, started.run)
    lens = ChatLens(started.run, counts_usage=counts_usage)
    response = stream_response(lens, batches, started.place, on_disconnect, started.listener)
    return with_cache(current(), response, started, started.run.cache)


@error_shape(blueprint, "/v1/chat/completions")
def refused(error: SlipwayError) -> Response:
    return error_response(error)
