"""User management, for admins."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from flask import Blueprint, Response, request
from pydantic import Field, model_validator

from service import errors
from service.auth.passwords import MAX_PASSWORD, MIN_PASSWORD
from service.auth.permissions import check_credential
from service.auth.users import Role
from service.auth.workspaces import no_workspace
from service.privacy.export import export
from service.store.database import Transaction
from service.store.run_limits import NewLimit
from service.web.admission import guard, reading_place
from service.web.current import current_caller, services
from service.web.idempotency import once, once_again
from service.web.openapi import api
from service.web.paging import PAGE, WORKSPACE, asked_workspace, page, page_arguments
from service.web.recheck import while_admitted
from service.web.schemas import (
    Body,
    KeyPage,
    Page,
    RateText,
    Shape,
    Until,
    json_response,
)
from service.web.validation import check_override, parse

blueprint = Blueprint("admin", __name__)
Password = Annotated[str, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD)]
LINES = "application/x-ndjson"


class NewUser(Body):
    """New user. `limit_runs` such as `60/minute`; by default the setting's limit. `workspace_id`: the caller's."""

    username: Annotated[str, Field(min_length=1, max_length=128)]
    password: Password
    role: Role = "user"
    limit_runs: RateText | None = None
    workspace_id: Annotated[str, Field(max_length=32)] | None = None


class UserChange(Body):
    """Changes of a user; omitted fields keep their values, an empty `limit_runs` restores the setting's limit.

    At `limit_runs_until` the limit before `limit_runs` comes back.
    """

    password: Password | None = None
    role: Role | None = None
    disabled: bool | None = None
    limit_runs: RateText | None = None
    limit_runs_until: Until | None = None

    @model_validator(mode="after")
    def _something(self) -> UserChange:
        check_override(self.limit_runs, self.limit_runs_until)
        if not self.model_dump(exclude_none=True):
            raise ValueError("send something to change")
        return self


class UserView(Shape):
    id: str
    workspace_id: str
    username: str
    role: str
    disabled: bool
    created_at: str
    limit_runs: str | None
    limit_runs_until: str | None
    limit_runs_after: str | None


class UserPage(Page[UserView]): ...


class ErasureView(Shape):
    """Erasure of a user. `erased_at`: nothing was left; `verified_at`: nor once all that was under way had ended."""

    user_id: str
    status: str
    asked_at: str
    erased_at: str | None
    verified_at: str | None
    erased: dict[str, int]


@blueprint.get("/v1/admin/users")
@api(
    "List users, oldest first",
    returns={200: UserPage},
    errors=[errors.Forbidden, errors.Invalid],
    query=PAGE | WORKSPACE | {"username": {"type": "string", "description": "The user of this name"}},
)
@guard()
def list_users() -> Response:
    limit, after = page_arguments()
    wanted = {"workspace_id": asked_workspace(), "username": request.args.get("username")}
    found = services().auth.users.page(limit=limit + 1, after=after, **wanted)
    return json_response(page([user.public() for user in found], limit))


@blueprint.post("/v1/admin/users")
@api(
    "Create a user",
    body=NewUser,
    returns={201: UserView},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict, errors.Invalid, errors.IdempotencyMismatch],
    headers=["Idempotency-Replayed"],
)
@guard()
def create_user() -> Response:
    body, users, caller = parse(NewUser), services().auth.users, current_caller()
    workspace_id = body.workspace_id or caller.workspace_id
    if caller.confined_to not in (None, workspace_id):
        raise no_workspace(workspace_id)
    check_credential(caller, body.role, workspace_id)
    row = users.new_row(body.username, body.password, body.role, body.limit_runs, workspace_id)

    def work(tx: Transaction) -> dict[str, Any]:
        return users.insert(tx, row).public()

    return once(work, 201)


@blueprint.get("/v1/admin/users/<user_id>")
@api("Get a user", returns={200: UserView}, errors=[errors.Forbidden, errors.NotFound])
@guard()
def get_user(user_id: str) -> Response:
    return json_response(services().auth.users.get(user_id, current_caller().confined_to).public())


@blueprint.patch("/v1/admin/users/<user_id>")
@api(
    "Change a user; log-ins of this user end, and runs of a disabled one",
    body=UserChange,
    returns={200: UserView},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict, errors.Invalid],
)
@guard()
def change_user(user_id: str) -> Response:
    body, caller = parse(UserChange), current_caller()
    if body.disabled or body.role not in (None, "admin"):
        _not_oneself(user_id)
    if caller.scopes and (body.password or body.role):
        user = services().auth.users.get(user_id, caller.confined_to)
        for role in (user.role, body.role or user.role):
            check_credential(caller, role, user.workspace_id)
    limit = None if body.limit_runs is None else NewLimit(body.limit_runs, body.limit_runs_until)
    fields = body.model_dump(exclude={"limit_runs", "limit_runs_until"})
    changed = services().auth.users.change(user_id, caller.confined_to, **fields, limit=limit)
    return json_response(changed.public())


@blueprint.delete("/v1/admin/users/<user_id>")
@api(
    "Delete a user and cancel their runs; the ledger keeps their cost",
    returns={204: None},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict],
)
@guard()
def delete_user(user_id: str) -> Response:
    _not_oneself(user_id)
    services().auth.users.delete(user_id, current_caller().confined_to)
    return Response(status=204)


@blueprint.get("/v1/admin/users/<user_id>/export")
@api(
    "Export all data of a user as JSON lines",
    returns={200: None},
    errors=[errors.Forbidden, errors.NotFound, errors.RateLimited, errors.Overloaded],
    stream=LINES,
)
@guard()
def export_user(user_id: str) -> Response:
    place = reading_place()
    try:
        lines = export(services().infra.db, user_id, current_caller().confined_to)
    except BaseException:
        place.give()
        raise
    encoded = (orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)
    response = Response(while_admitted(encoded), mimetype=LINES)
    response.headers["Content-Disposition"] = f'attachment; filename="{user_id}.jsonl"'
    response.call_on_close(place.give)
    return response


@blueprint.post("/v1/admin/users/<user_id>/erase")
@api(
    "Erase a user everywhere but for ids in ledger and audit; repeat it to see how far it is",
    returns={202: ErasureView},
    errors=[errors.Forbidden, errors.NotFound, errors.Conflict, errors.IdempotencyMismatch],
    headers=["Idempotency-Replayed"],
)
@guard()
def erase_user(user_id: str) -> Response:
    _not_oneself(user_id)
    within = current_caller().confined_to
    return once_again(lambda: services().erasures.erase(user_id, within), 202)


@blueprint.delete("/v1/admin/users/<user_id>/logins")
@api(
    "End all log-ins of a user, on all workers at once",
    returns={204: None},
    errors=[errors.Forbidden, errors.NotFound],
)
@guard()
def end_logins(user_id: str) -> Response:
    services().auth.users.end_logins(user_id, current_caller().confined_to)
    return Response(status=204)


@blueprint.get("/v1/admin/users/<user_id>/keys")
@api(
    "List the API keys of a user",
    returns={200: KeyPage},
    errors=[errors.Forbidden, errors.NotFound, errors.Invalid],
    query=PAGE,
)
@guard()
def list_keys_of(user_id: str) -> Response:
    limit, after = page_arguments()
    user = services().auth.users.get(user_id, current_caller().confined_to)
    return json_response(page(services().auth.keys.page(user.id, limit=limit + 1, after=after), limit))


@blueprint.delete("/v1/admin/users/<user_id>/keys/<key_id>")
@api(
    "Revoke an API key of a user at once",
    returns={204: None},
    errors=[errors.Forbidden, errors.NotFound],
)
@guard()
def revoke_key_of(user_id: str, key_id: str) -> Response:
    user = services().auth.users.get(user_id, current_caller().confined_to)
    services().auth.keys.revoke(key_id, user.id)
    return Response(status=204)


def _not_oneself(user_id: str) -> None:
    """Raise `Conflict` for the caller's own id, so that one admin is always left."""
    if user_id == current_caller().user_id:
        raise errors.Conflict("Another admin has to do this to you.")
