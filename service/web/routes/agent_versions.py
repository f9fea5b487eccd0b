"""Versions of agents: published, pinned, rolled back; for admins of the service, as an agent serves all workspaces."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Literal

from flask import Blueprint, Response
from pydantic import Field, model_validator

from service import errors
from service.errors import fault
from service.web.admission import guard
from service.web.current import services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.schemas import Body, Page, Shape, json_response
from service.web.validation import parse

blueprint = Blueprint("agent_versions", __name__)
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


class VersionChange(Body):
    """Change of an agent's versions. `version`: of `pin` only.

    `publish` stores the folder as it is on this server, `pin` serves a published version in place of it, `roll_back`
    serves what was served before the last pin, `unpin` the folder.
    """

    action: Literal["publish", "pin", "roll_back", "unpin"]
    version: Version | None = None

    @model_validator(mode="after")
    def _version_of_pin(self) -> VersionChange:
        if (self.version is None) == (self.action == "pin"):
            raise fault("/version", "is that of `pin`, which needs it")
        return self


class VersionView(Shape):
    version: str
    size: int
    published_by: str | None
    published_at: str
    pinned: bool


class PinView(Shape):
    """Pin of an agent; without a version, its folder was served from then on."""

    version: str | None
    pinned_by: str | None
    pinned_at: str


class VersionList(Page[VersionView]):
    """Published versions of an agent, newest first, which is `pinned`, and the last pins in `history`."""

    agent: str
    pinned: str | None
    history: list[PinView]


@blueprint.get("/v1/admin/agents/<agent>/versions")
@api(
    "List an agent's published versions",
    returns={200: VersionList},
    errors=[errors.Forbidden, errors.NotFound],
    tag="Admin",
)
@guard()
def list_versions(agent: str) -> Response:
    return json_response(services().infra.db.query(partial(services().versions.shown, agent=agent)))


@blueprint.post("/v1/admin/agents/<agent>/versions")
@api(
    "Publish, pin or roll back a version of an agent",
    body=VersionChange,
    returns={200: VersionList},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict, errors.Invalid, errors.IdempotencyMismatch],
    tag="Admin",
    headers=["Idempotency-Replayed"],
)
@guard()
def change_versions(agent: str) -> Response:
    """Runs that have begun finish under their version. Each process serves another one a few seconds later."""
    versions, body = services().versions, parse(VersionChange)
    if body.action == "publish":
        return once(partial(versions.publish, row=versions.read(agent)), 200)
    if body.action == "roll_back":
        return once(partial(versions.roll_back, agent=agent), 200)
    return once(partial(versions.pin, agent=agent, version=body.version), 200)
