"""Agents and models, for clients that list what they may ask: in OpenAI's shape, or in Anthropic's for its clients."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from service import errors
from service.auth.permissions import may_ask_model
from service.errors import SlipwayError, fault
from service.text.numerals import whole_number
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
MOST = 1_000  # models of one page, as at Anthropic


class Model(Shape):
    """Agent as a model, or a model itself."""

    id: str


class ModelList(Shape):
    data: list[Model]


@blueprint.get("/v1/models")
@api(
    "List agents and models",
    returns={200: ModelList},
    errors=[errors.Invalid],
    tag="OpenAI",
    query={
        "limit": {"type": "integer", "minimum": 1, "maximum": MOST},
        "after_id": {"type": "string"},
        "before_id": {"type": "string"},
    },
    error=OpenAIError,
    status=status_of,
)
@guard()
def list_models() -> Response:
    """List agents first, then the models of the price table that the caller may ask as they are.

    Without `limit`, all of them: OpenAI's dialect has no pages.
    """
    caller = current_caller()
    models = [name for name in services().agents.models() if may_ask_model(caller, name)]
    found = [_shown(agent.id, OWNER) for agent in allowed_agents()]
    found += [_shown(name, _provider(name)) for name in models]
    page, has_more = _page(found)
    if not _for_anthropic():
        return json_response({"object": "list", "data": page})
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return json_response({"data": page, "has_more": has_more, "first_id": first, "last_id": last})


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


def _page(found: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    """Return the part of a list that the query asks for, and whether more follows. Raises `Invalid`."""
    text = request.args.get("limit")
    limit = len(found) if text is None else whole_number(text)
    if limit is None or (text is not None and not 1 <= limit <= MOST):
        raise fault("/limit", f"must be a number from 1 to {MOST}")
    after, before = _place(found, "after_id"), _place(found, "before_id")
    if after is not None and before is not None:
        raise fault("/before_id", "must not be sent with after_id")
    if before is not None:
        rest = found[:before]
        return rest[max(0, before - limit) :], before > limit
    rest = found if after is None else found[after + 1 :]
    return rest[:limit], len(rest) > limit


def _place(found: list[dict[str, Any]], argument: str) -> int | None:
    """Return the place in a list of the model that an argument names. Raises `Invalid` for one that is not there."""
    if (name := request.args.get(argument)) is None:
        return None
    place = next((place for place, one in enumerate(found) if one["id"] == name), None)
    if place is None:
        raise fault(f"/{argument}", "is not the id of a model in this list")
    return place


def _provider(name: str) -> str:
    return services().usage.prices.provider(name) or OWNER


def _shown(name: str, owner: str) -> dict[str, Any]:
    """Describe an agent or a model, without a date: both dialects take the epoch for an unknown one."""
    if _for_anthropic():
        return {"type": "model", "id": name, "display_name": name, "created_at": rfc3339(0)}
    return {"id": name, "object": "model", "created": 0, "owned_by": owner}
