"""Responses: agents as the models of OpenAI's Responses API, which keeps answers and works in the background."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response, request

from service import errors
from service.errors import SlipwayError, fault
from service.llm.relay import ResponsesRequest
from service.types import Run, RunRequest
from service.web.admission import Admitted, admit, guard, reading_place
from service.web.current import current, services
from service.web.idempotency import once_again
from service.web.openai import upstream_answers
from service.web.openai.errors import OpenAIError, error_response, problem_of_run, status_of
from service.web.openai.responses_answer import response_of
from service.web.openai.responses_body import ResponseBody
from service.web.openai.responses_kept import (
    MAX_ITEMS,
    cancelled,
    earlier_of,
    ended,
    flag,
    kept,
    number,
    page_of,
)
from service.web.openai.responses_lens import ResponsesLens
from service.web.openai.upstream_body import names_upstream_model
from service.web.openai.upstream_response_body import response_request, run_request
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.recheck import still_admitted
from service.web.run_answers import streamed, whole
from service.web.run_responses import RUN_ERRORS, with_replayed
from service.web.schemas import Shape, json_response
from service.web.streaming import stream_response
from service.web.validation import parse

blueprint = Blueprint("responses", __name__)
Fields = dict[str, Any]  # that the answers repeat
EVENTS = "`response.…`, each with its number, then `[DONE]`"


class ResponseShape(Shape):
    """Response: a run, as OpenAI's API tells it."""

    id: str
    object: Literal["response"]
    created_at: int
    status: str
    model: str
    output: list[dict[str, Any]]


class Deleted(Shape):
    """Response that was deleted."""

    id: str
    object: Literal["response"]
    deleted: bool


class InputItems(Shape):
    """Input of a response, as it was sent."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


@blueprint.post("/v1/responses")
@api(
    "Ask an agent, as a model, and keep its answer; or a model of the upstream in this dialect",
    body=ResponseBody,
    returns={200: ResponseShape},
    errors=(*RUN_ERRORS, errors.PreviousResponseNotFound),
    tag="OpenAI",
    stream="text/event-stream",
    events=EVENTS,
    error=OpenAIError,
    status=status_of,
    headers=("X-Cache", "X-Cost-USD", "Idempotency-Replayed"),
)
@guard(counts="step")
def create_response() -> Response:
    """Answer by an agent or a model; or, with the token of a run, relay an upstream model's answer as a step of it."""
    grant = current().grant
    return _answer() if grant is None else upstream_answers.relay_step(grant, response_request)


def _answer() -> Response:
    asked: list[tuple[Fields, bool | None]] = []
    relayed: list[ResponsesRequest] = []

    def question() -> RunRequest:
        if names_upstream_model():
            named, request = response_request()
            relayed.append(request)
            return run_request(named, request)
        body = parse(ResponseBody, most=services().settings.door_body_limit)
        asked.append((body.repeated, body.stream))
        return body.request(earlier_of(body))

    admitted = admit(None, question)
    if relayed:
        return upstream_answers.answer(admitted, relayed[0])
    fields, stream = asked[0]
    if fields["background"]:
        return _queued(admitted, fields, stream)
    if stream:
        return streamed(admitted, lambda run: ResponsesLens(run, fields))
    return whole(admitted, lambda run, result: response_of(run, result, fields), problem_of_run)


@blueprint.get("/v1/responses/<response_id>")
@api(
    "Get a response, or stream it again after an event's number",
    returns={200: ResponseShape},
    errors=[errors.ResponseNotFound, errors.Invalid, errors.Overloaded],
    tag="OpenAI",
    query={
        "stream": {"type": "boolean"},
        "starting_after": {"type": "integer", "minimum": 0},
        "include": {"type": "array", "items": {"type": "string"}},
        "include_obfuscation": {"type": "boolean"},
    },
    stream="text/event-stream",
    events=EVENTS,
    error=OpenAIError,
    status=status_of,
)
@guard()
def get_response(response_id: str) -> Response:
    run, fields = kept(response_id)
    if flag("stream"):
        return _followed(run, fields, number("starting_after", -1))
    return json_response(response_of(run, services().runs.queries.result(run), fields))


@blueprint.delete("/v1/responses/<response_id>")
@api(
    "Delete a response and its run; one in progress is cancelled",
    returns={200: Deleted},
    errors=[errors.ResponseNotFound, errors.Conflict],
    tag="OpenAI",
    error=OpenAIError,
    status=status_of,
)
@guard()
def delete_response(response_id: str) -> Response:
    run = ended(cancelled(kept(response_id)[0]))
    if not services().runs.deletion.delete(run.id):
        kept(response_id)  # another call may have deleted it
        raise errors.Conflict("The response is being cancelled; try again shortly.", retry_after=1)
    return json_response({"id": response_id, "object": "response", "deleted": True})


@blueprint.post("/v1/responses/<response_id>/cancel")
@api(
    "Cancel a response; one that has ended stays as it is",
    returns={200: ResponseShape},
    errors=[errors.ResponseNotFound, errors.IdempotencyMismatch],
    tag="OpenAI",
    error=OpenAIError,
    status=status_of,
    headers=["Idempotency-Replayed"],
)
@guard(counts="end")
def cancel_response(response_id: str) -> Response:
    run, fields = kept(response_id)

    def work() -> dict[str, Any]:
        now = ended(cancelled(run))
        return response_of(now, services().runs.queries.result(now), fields)

    return once_again(work, 200)


@blueprint.get("/v1/responses/<response_id>/input_items")
@api(
    "List the input items of a response",
    returns={200: InputItems},
    errors=[errors.ResponseNotFound, errors.Invalid],
    tag="OpenAI",
    query={
        "limit": {"type": "integer", "minimum": 1, "maximum": MAX_ITEMS},
        "order": {"type": "string", "enum": ["asc", "desc"]},
        "after": {"type": "string"},
        "include": {"type": "array", "items": {"type": "string"}},
    },
    error=OpenAIError,
    status=status_of,
)
@guard()
def input_items(response_id: str) -> Response:
    items = (kept(response_id)[0].request.asked_as or {})["input"]
    order = request.args.get("order", "desc")
    if order not in ("asc", "desc"):
        raise fault("/order", "must be asc or desc")
    return json_response(page_of(items if order == "asc" else items[::-1], request.args.get("after")))


def _queued(admitted: Admitted, fields: Fields, stream: bool | None) -> Response:
    """Queue a run; the sweep repeats a lost wake-up."""
    started = services().runs.start.queue(*admitted)
    run = started.run
    if not started.replayed:
        services().runs.wakeup.ring([run.id])
    if stream:
        return with_replayed(_followed(run, fields, -1), started)
    result = services().runs.queries.result(run) if started.replayed else {}
    return with_replayed(json_response(response_of(run, result, fields)), started)


def _followed(run: Run, fields: Fields, after: int) -> Response:
    """Stream a run's events from the first on, without those that the client has."""
    place = reading_place()
    batches = services().runs.queries.follow(run.id, 0, still_admitted(current()))
    lens = ResponsesLens(run, fields, after=after, resumable=True)
    return stream_response(lens, batches, place, opening=lens.opening())


@error_shape(blueprint, "/v1/responses")
def refused(error: SlipwayError) -> Response:
    return error_response(error)
