"""Kill switch of agents, for admins of the service: an agent serves all workspaces."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from service import errors
from service.runs.stops import MAX_REASON
from service.web.admission import guard
from service.web.current import services
from service.web.idempotency import once, once_again
from service.web.openapi import api
from service.web.schemas import AgentStopView, Body
from service.web.validation import parse

blueprint = Blueprint("agent_stops", __name__)


class NewStop(Body):
    """Stop of an agent. `reason`: for other admins, who see it in lists."""

    reason: Annotated[str, Field(min_length=1, max_length=MAX_REASON)]


@blueprint.post("/v1/admin/agents/<agent>/stop")
@api(
    "Stop an agent: its runs wait, new ones are refused",
    body=NewStop,
    returns={200: AgentStopView},
    errors=[errors.Forbidden, errors.NotFound, errors.Invalid, errors.IdempotencyMismatch],
    tag="Admin",
    headers=["Idempotency-Replayed"],
)
@guard()
def stop_agent(agent: str) -> Response:
    """Once this is answered, no model or tool call of the agent begins. An agent that is stopped keeps its reason."""
    return once(partial(services().runs.stops.stop, agent=agent, reason=parse(NewStop).reason), 200)


@blueprint.post("/v1/admin/agents/<agent>/release")
@api(
    "Release a stopped agent: its runs go on",
    returns={200: AgentStopView},
    errors=[errors.Forbidden, errors.NotFound, errors.IdempotencyMismatch],
    tag="Admin",
    headers=["Idempotency-Replayed"],
)
@guard()
def release_agent(agent: str) -> Response:
    return once_again(partial(services().runs.stops.release, agent), 200)
