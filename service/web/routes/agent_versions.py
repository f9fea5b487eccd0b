"""Versions of agents: published, pinned, on trial; for admins of the service, as an agent serves all workspaces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

from flask import Blueprint, Response
from pydantic import Field, model_validator

from service import errors
from service.agents.versions import AgentVersions
from service.errors import fault
from service.store.database import Transaction
from service.web.admission import guard
from service.web.current import services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.schemas import Body, Page, Shape, json_response
from service.web.validation import parse

blueprint = Blueprint("agent_versions", __name__)
Version = Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")]


class VersionChange(Body):
    """Change of an agent's versions. `version`: of `pin` and `canary` only; `share`: of `canary`, 0.05 for 5 %.

    `publish` stores the folder as it is on this server, `pin` serves a published version in place of it, `roll_back`
    serves what was served before the last pin, `unpin` the folder. `canary` serves a published version to a share of
    sessions and users, until `end_canary`, a pin, or its figures show that it is worse than the pinned one.
    """

    action: Literal["publish", "pin", "roll_back", "unpin", "canary", "end_canary"]
    version: Version | None = None
    share: Annotated[float, Field(ge=0.01, le=0.5)] | None = None

    @model_validator(mode="after")
    def _fields_of_action(self) -> VersionChange:
        if (self.version is None) == (self.action in ("pin", "canary")):
            raise fault("/version", "is that of `pin` and `canary`, which need it")
        if (self.share is None) == (self.action == "canary"):
            raise fault("/share", "is that of `canary`, which needs it: 0.05 is 5 %")
        return self

    def change(self, versions: AgentVersions, agent: str) -> Callable[[Transaction], dict[str, Any]]:
        """Return the change as what a transaction does. Raises what reading a folder does."""
        if self.action == "publish":
            return partial(versions.publish, row=versions.read(agent))
        if self.action == "canary":
            return partial(
                versions.start_canary, agent=agent, version=self.version or "", share=self.share or 0
            )
        if self.action == "roll_back":
            return partial(versions.roll_back, agent=agent)
        if self.action == "end_canary":
            return partial(versions.end_canary, agent=agent)
        return partial(versions.pin, agent=agent, version=self.version)


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


class Counts(Shape):
    canary: int
    pinned: int


class Costs(Shape):
    """Mean cost of a run; null without any."""

    canary: str | None
    pinned: str | None


class Ratings(Shape):
    ratings: int
    mean: float | None


class FeedbackView(Shape):
    canary: Ratings
    pinned: Ratings


class CanaryView(Shape):
    """Canary, and the figures of its last comparison: of its runs, and of as many sessions of the pinned version."""

    version: str
    against: str
    share: float
    since: str
    started_by: str | None
    runs: Counts
    failures: Counts
    cost: Costs
    feedback: FeedbackView
    looks: int
    verdict: Literal["waiting", "not_worse", "worse"]
    worse_in: Literal["failures", "cost", "feedback"] | None
    outcome: Literal["rolled_back", "pinned", "ended"] | None
    ended_at: str | None


class VersionList(Page[VersionView]):
    """Published versions of an agent, newest first; which is `pinned`; its last canary; its last pins, in `history`."""

    agent: str
    pinned: str | None
    canary: CanaryView | None
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
    return json_response(services().versions.show(agent))


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
    return once(parse(VersionChange).change(services().versions, agent), 200)
