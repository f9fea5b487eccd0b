"""Agents that the caller may use."""

from __future__ import annotations

from flask import Blueprint, Response

from service import errors
from service.web.admission import allowed_agent, allowed_agents, guard
from service.web.openapi import api
from service.web.paging import PAGE, page, page_arguments
from service.web.schemas import AgentList, AgentView, json_response

blueprint = Blueprint("agents", __name__)


@blueprint.get("/v1/agents")
@api(
    "List agents that the caller may use, by name",
    returns={200: AgentList},
    errors=[errors.Invalid],
    query=PAGE,
)
@guard()
def list_agents() -> Response:
    limit, after = page_arguments(default=100)
    found = [agent.public() for agent in allowed_agents() if agent.id > (after or "")]
    return json_response(page(found, limit))


@blueprint.get("/v1/agents/<agent>")
@api("Get an agent", returns={200: AgentView}, errors=[errors.NotFound])
@guard()
def get_agent(agent: str) -> Response:
    return json_response(allowed_agent(agent).public())
