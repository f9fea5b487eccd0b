"""Models and agents that are asked by the Messages API with a key."""

from __future__ import annotations

from flask import Response

from service.auth.permissions import check_models
from service.llm.relay import RelayedRequest
from service.types import RunRequest
from service.web.admission import admit, allowed_model
from service.web.anthropic.agent_body import AgentBody
from service.web.anthropic.agent_lens import MessagesLens, message
from service.web.anthropic.errors import error_event, problem_of_run
from service.web.anthropic.relayed_body import relayed_request, run_request
from service.web.body import raw_json
from service.web.current import current, services
from service.web.relaying import Dialect, model_named, relayed_answer
from service.web.run_answers import streamed, whole
from service.web.validation import parse, validate


def answer() -> Response:
    """Answer by an agent, or relay a model's answer, as a run. Raises as `admit` and `RunStarter` do."""
    relayed: list[RelayedRequest] = []

    def question() -> RunRequest:
        if (name := model_named()) is None:
            return parse(AgentBody, most=services().settings.door_body_limit, texts=()).request()
        relayed.append(relayed_request(needs_limit=True))
        return run_request(name, relayed[0])

    admitted = admit(None, question)
    if relayed:
        return relayed_answer(admitted, relayed[0], _DIALECT)
    if admitted.request.door == "messages/stream":
        return streamed(admitted, MessagesLens)
    return whole(admitted, message, problem_of_run)


def count() -> int:
    """Count what a model, or the model of an agent, would read of this conversation. Raises the model's errors."""
    caller, counts = current().caller, services().runs.counts
    if (name := model_named()) is not None:
        allowed_model(name)
        asked = relayed_request(needs_limit=False)
        with services().runs.bulkhead.take(caller.user_id):
            return counts.of_body(caller, asked)
    value = raw_json(services().settings.door_body_limit)
    body = validate(AgentBody, {"max_tokens": 1, **value} if isinstance(value, dict) else value, texts=())
    agent = allowed_model(body.model)
    check_models(caller, agent.id, agent.models)
    with services().runs.bulkhead.take(caller.user_id):
        return counts.of_run(caller, body.request())


_DIALECT = Dialect(problem_of_run, error_event)
