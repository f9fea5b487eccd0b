"""Agents as models, for clients that list what they may ask: in OpenAI's shape, or in Anthropic's for its clients."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from service import errors
from service.agents.definitions import AgentDefinition
from service.errors import SlipwayError
from service.types import rfc3339
from service.web.admission import allowed_agent, allowed_agents, guard
from service.web.anthropic.errors import error_response as anthropic_error
from service.web.current import current
from service.web.openai.errors import OpenAIError, status_of
from service.web.openai.errors import error_response as openai_error
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.schemas import Shape, json_response

blueprint = Blueprint("models", __name__)
OWNER = "slipway"


class Model(Shape):
    """Agent as a model."""

    id: str


class ModelList(Shape):
    data: list[Model]


@blueprint.get("/v1/models")
@api("List agents as models", returns={200: ModelList}, tag="OpenAI", error=OpenAIError, status=status_of)
@guard()
def list_models() -> Response:
    found = [_model(agent) for agent in allowed_agents()]
    if not _for_anthropic():
        return json_response({"object": "list", "data": found})
    ends = (
        {"first_id": found[0]["id"], "last_id": found[-1]["id"]}
        if found
        else {"first_id": None, "last_id": None}
    )
    return json_response({"data": found, "has_more": False, **ends})


@blueprint.get("/v1/models/<agent>")
@api(
    "Get an agent as a model", returns={200: Model}, errors=[errors.NotFound], tag="OpenAI", error=OpenAIError
)
@guard()
def get_model(agent: str) -> Response:
    return json_response(_model(allowed_agent(agent)))


@error_shape(blueprint, "/v1/models")
def refused(error: SlipwayError) -> Response:
    return anthropic_error(error) if _for_anthropic() else openai_error(error)


def _for_anthropic() -> bool:
    return "anthropic-version" in current().headers


def _model(agent: AgentDefinition) -> dict[str, Any]:
    """Describe an agent. Folders have no date: both dialects take the epoch for an unknown one."""
    if _for_anthropic():
        return {"type": "model", "id": agent.id, "display_name": agent.id, "created_at": rfc3339(0)}
    return {"id": agent.id, "object": "model", "created": 0, "owned_by": OWNER}
