"""Workspaces, for admins of the service."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import Field, model_validator

from service import errors
from service.store.database import Transaction
from service.web.admission import guard
from service.web.current import services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.paging import PAGE, page, page_arguments
from service.web.schemas import Body, Page, Shape, json_response
from service.web.validation import parse

blueprint = Blueprint("workspaces", __name__)
Name = Annotated[str, Field(min_length=1, max_length=63)]


class NewWorkspace(Body):
    """New workspace. `name`: a-z, 0-9, dots and hyphens."""

    name: Name


class WorkspaceChange(Body):
    """Changes of a workspace; omitted fields keep their values. Empty `guardrails` remove them."""

    name: Name | None = None
    disabled: bool | None = None
    guardrails: dict[str, Any] | None = Field(
        default=None, description="Guardrails of all its runs, as `guardrails` of agent.yaml"
    )

    @model_validator(mode="after")
    def _something(self) -> WorkspaceChange:
        if not self.model_dump(exclude_none=True):
            raise ValueError("send something to change")
        return self


class WorkspaceView(Shape):
    id: str
    name: str
    disabled: bool
    created_at: str
    guardrails: dict[str, Any] | None


class WorkspacePage(Page[WorkspaceView]): ...


@blueprint.get("/v1/admin/workspaces")
@api(
    "List workspaces, oldest first",
    returns={200: WorkspacePage},
    errors=[errors.Forbidden, errors.Invalid],
    tag="Admin",
    query=PAGE,
)
@guard()
def list_workspaces() -> Response:
    limit, after = page_arguments()
    found = services().auth.workspaces.page(limit=limit + 1, after=after)
    return json_response(page([workspace.public() for workspace in found], limit))


@blueprint.post("/v1/admin/workspaces")
@api(
    "Create a workspace",
    body=NewWorkspace,
    returns={201: WorkspaceView},
    errors=[errors.Forbidden, errors.Conflict, errors.Invalid, errors.IdempotencyMismatch],
    tag="Admin",
    headers=["Idempotency-Replayed"],
)
@guard()
def create_workspace() -> Response:
    workspaces = services().auth.workspaces
    row = workspaces.new_row(parse(NewWorkspace).name)

    def work(tx: Transaction) -> dict[str, Any]:
        return workspaces.insert(tx, row).public()

    return once(work, 201)


@blueprint.get("/v1/admin/workspaces/<workspace_id>")
@api(
    "Get a workspace",
    returns={200: WorkspaceView},
    errors=[errors.Forbidden, errors.NotFound],
    tag="Admin",
)
@guard()
def get_workspace(workspace_id: str) -> Response:
    return json_response(services().auth.workspaces.get(workspace_id).public())


@blueprint.patch("/v1/admin/workspaces/<workspace_id>")
@api(
    "Rename, disable or enable a workspace, or replace its guardrails; a disabled one's log-ins and runs end, "
    "and its keys are refused",
    body=WorkspaceChange,
    returns={200: WorkspaceView},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict, errors.Invalid],
    tag="Admin",
)
@guard()
def change_workspace(workspace_id: str) -> Response:
    body = parse(WorkspaceChange)
    return json_response(services().auth.workspaces.change(workspace_id, **body.model_dump()).public())


@blueprint.delete("/v1/admin/workspaces/<workspace_id>")
@api(
    "Delete a workspace without users; the ledger keeps the cost of their runs",
    returns={204: None},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict],
    tag="Admin",
)
@guard()
def delete_workspace(workspace_id: str) -> Response:
    services().auth.workspaces.delete(workspace_id)
    return Response(status=204)
