"""Models and agents that are asked by the Messages API with a key."""

from __future__ import annotations

import orjson
from flask import Response

from service.auth.permissions import check_models
from service.error_table import error_class
from service.llm.relay import RelayedRequest
from service.types import RunRequest
from service.web.admission import admit, allowed_model
from service.web.anthropic import agent_answers
from service.web.anthropic.agent_body import AgentBody
from service.web.anthropic.errors import error_of_run, headers_of, status_of
from service.web.anthropic.relayed_body import relayed_request, run_request
from service.web.body import raw_json
from service.web.current import current, services
from service.web.relaying import Dialect, Problem, relayed_answer
from service.web.schemas import json_response
from service.web.validation import parse, validate


def answer() -> Response:
    """Answer by an agent, or relay a model's answer, as a run. Raises as `admit` and `RunStarter` do."""
    relayed: list[RelayedRequest] = []

    def question() -> RunRequest:
        if (name := _model_named()) is None:
            return parse(AgentBody, most=services().settings.door_body_limit, texts=()).request()
        relayed.append(relayed_request(needs_limit=True))
        return run_request(name, relayed[0])

    admitted = admit(None, question)
    return relayed_answer(admitted, relayed[0], _DIALECT) if relayed else agent_answers.answer(admitted)


def count() -> int:
    """Count what a model, or the model of an agent, would read of this conversation. Raises the model's errors."""
    caller, counts = current().caller, services().runs.counts
    if (name := _model_named()) is not None:
        allowed_model(name)
        asked = relayed_request(needs_limit=False)
        with services().runs.bulkhead.take(caller.user_id):
            return counts.of_body(asked)
    value = raw_json(services().settings.door_body_limit)
    body = validate(AgentBody, {"max_tokens": 1, **value} if isinstance(value, dict) else value, texts=())
    agent = allowed_model(body.model)
    check_models(caller, agent.id, agent.models)
    with services().runs.bulkhead.take(caller.user_id):
        return counts.of_run(caller, body.request())


def _model_named() -> str | None:
    """Return the name in the body where it is a model's of the price table, and no agent's."""
    value = raw_json(services().settings.door_body_limit)
    name = value.get("model") if isinstance(value, dict) else None
    return name if isinstance(name, str) and services().agents.model(name) is not None else None


def _error_answer(problem: Problem) -> Response:
    kind = error_class(problem["code"])
    headers = headers_of(kind, problem.get("retry_after"))
    return json_response(error_of_run(problem), status_of(kind), headers)


def _error_event(problem: Problem) -> bytes:
    return b"event: error\ndata: %b\n\n" % orjson.dumps(error_of_run(problem))


_DIALECT = Dialect(_error_answer, _error_event)
