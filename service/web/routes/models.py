"""Agents and models, for clients that list what they may ask: in OpenAI's shape, or in Anthropic's for its clients."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from service import errors
from service.auth.permissions import may_ask_model
from service.errors import SlipwayError
from service.types import rfc3339
from service.web.admission import allowed_agents, allowed_model, guard
from service.web.anthropic.errors import error_response as anthropic_error
from service.web.current import current, current_caller, services
from service.web.openai.errors import OpenAIError, status_of
from service.web.openai.errors import error_response as openai_error
from service.web.openapi import api
from service.web.problems import error_shape
from service.web.schemas import Shape, json_response

blueprint = Blueprint("models", __name__)
OWNER = "slipway"


class Model(Shape):
    """Agent as a model, or a model itself."""

    id: str


class ModelList(Shape):
    data: list[Model]


@blueprint.get("/v1/models")
@api("List agents and models", returns={200: ModelList}, tag="OpenAI", error=OpenAIError, status=status_of)
@guard()
def list_models() -> Response:
    """List agents first, then the models of the price table that the caller may ask as they are."""
    caller = current_caller()
    models = [name for name in services().agents.models() if may_ask_model(caller, name)]
    found = [_shown(agent.id, OWNER) for agent in allowed_agents()]
    found += [_shown(name, _provider(name)) for name in models]
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
    "Get an agent as a model, or a model",
    returns={200: Model},
    errors=[errors.NotFound, errors.Forbidden],
    tag="OpenAI",
    error=OpenAIError,
)
@guard()
def get_model(agent: str) -> Response:
    found = allowed_model(agent)
    return json_response(_shown(found.id, _provider(found.id) if found.is_model else OWNER))


@error_shape(blueprint, "/v1/models")
def refused(error: SlipwayError) -> Response:
    return anthropic_error(error) if _for_anthropic() else openai_error(error)


def _for_anthropic() -> bool:
    return "anthropic-version" in current().headers


def _provider(name: str) -> str:
    return services().usage.prices.provider(name) or OWNER


def _shown(name: str, owner: str) -> dict[str, Any]:
    """Describe an agent or a model, without a date: both dialects take the epoch for an unknown one."""
    if _for_anthropic():
        return {"type": "model", "id": name, "display_name": name, "created_at": rfc3339(0)}
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
