"""Chat Completions: agents as the models of OpenAI's API, for its SDKs and the chat pages that are built on it."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response

from service.errors import SlipwayError
from service.llm.relay import ChatRequest
from service.types import RunRequest
from service.web.admission import admit, guard
from service.web.current import current, services
from service.web.openai import upstream_answers
from service.web.openai.chat_body import ChatBody
from service.web.openai.chat_lens import ChatLens, completion
from service.web.openai.errors import OpenAIError, error_response, problem_of_run, status_of
from service.web.openai.upstream_body import chat_request, names_upstream_model, run_request
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.run_answers import streamed, whole
from service.web.run_responses import RUN_ERRORS
from service.web.schemas import Shape
from service.web.validation import parse

blueprint = Blueprint("chat", __name__)


class Completion(Shape):
    """Answer of Chat Completions; an upstream may leave out `usage`, and has fields of its own."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


@blueprint.post("/v1/chat/completions")
@api(
    "Ask an agent, as a model; or a model of the upstream in this dialect",
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
@guard(counts="step")
def complete() -> Response:
    """Answer by an agent or a model; or, with the token of a run, relay an upstream model's answer as a step of it."""
    grant = current().grant
    return _answer() if grant is None else upstream_answers.relay_step(grant, chat_request)


def _answer() -> Response:
    counts: list[bool] = []
    relayed: list[ChatRequest] = []

    def question() -> RunRequest:
        if names_upstream_model():
            asked, request = chat_request()
            relayed.append(request)
            return run_request(asked, request)
        body = parse(ChatBody, most=services().settings.door_body_limit)
        counts.append(body.counts_usage)
        return body.request()

    admitted = admit(None, question)
    if relayed:
        return upstream_answers.answer(admitted, relayed[0])
    streams = admitted.request.door == "chat/stream"
    if streams:
        return streamed(admitted, lambda run: ChatLens(run, counts_usage=counts[0]))
    return whole(admitted, completion, problem_of_run)


@error_shape(blueprint, "/v1/chat/completions")
def refused(error: SlipwayError) -> Response:
    return error_response(error)
