"""Audit: its rows, and the proof that none was changed, read by operators and admins."""

from __future__ import annotations

from typing import Any

import orjson
from flask import Blueprint, Response, request

from service import errors
from service.audit import read
from service.audit.record import Action
from service.audit.verify import Verifier
from service.errors import NotFound, fault
from service.ids import first_id
from service.store.audit import Filter
from service.text.numerals import whole_number
from service.web.admission import guard, reading_place
from service.web.current import current_caller, services
from service.web.openapi import api
from service.web.paging import (
    PAGE,
    choice_argument,
    link_next,
    moment,
    page,
    page_arguments,
    refuse_other_parameters,
)
from service.web.schemas import Page, Shape, json_response

blueprint = Blueprint("audit", __name__)
LINES = "application/x-ndjson"
VERIFY_SECONDS = 10.0  # of one request; `flask audit verify` has no limit
MAX_TEXT = 192  # characters of a subject
_WORKSPACE = {"type": "string", "description": "Default: the caller's; others for the service's own admins"}
_ONE_OF = ("action", "user", "subject")


class AuditRow(Shape):
    """Audited action. `subject` is `kind:id`; `address` the network of the client; ids and no texts in `details`."""

    id: str
    workspace_id: str
    at: str
    action: str
    actor: str
    user_id: str | None
    key_id: str | None
    subject: str
    address: str | None
    request_id: str | None
    result: str
    details: dict[str, Any]


class AuditPage(Page[AuditRow]): ...


class AuditFaultView(Shape):
    seq: int | None
    audit_id: str | None
    fault: str


class AuditHead(Shape):
    seq: int
    hash: str


class AuditVerified(Shape):
    """Result of a verification. `partial`: time was up; send `after_seq` with the `seq` of `head` to go on."""

    ok: bool
    workspace_id: str
    checked: int
    unlinked: int
    first_fault: AuditFaultView | None
    head: AuditHead | None
    partial: bool


@blueprint.get("/v1/admin/audit")
@api(
    "List audit rows, newest first; JSON, or JSON lines with `Accept: application/x-ndjson`",
    returns={200: AuditPage},
    errors=[errors.Forbidden, errors.NotFound, errors.Invalid],
    tag="Admin",
    also=[LINES],
    query={
        **PAGE,
        "workspace": _WORKSPACE,
        "action": {"type": "string", "enum": list(Action)},
        "user": {"type": "string", "description": "Id of the user who acted"},
        "subject": {"type": "string", "description": "Such as `user:usr_…`; one of action, user and subject"},
        "from": {"type": "string", "description": "Date or time, inclusive"},
        "to": {"type": "string", "description": "Date, inclusive, or time, exclusive"},
    },
)
@guard()
def list_audit() -> Response:
    limit, before = page_arguments()
    found = read.page(services().infra.db, _filter(), limit=limit + 1, before=before)
    whole = page(found, limit)
    if request.accept_mimetypes.best_match(["application/json", LINES]) == LINES:
        lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in whole["data"])
        response = link_next(Response(lines, mimetype=LINES), whole["next_cursor"])
    else:
        response = json_response(whole)
    response.vary.add("Accept")
    return response


@blueprint.get("/v1/admin/audit/verify")
@api(
    "Verify the audit of a workspace: name the first row that was changed, or is missing or out of order",
    returns={200: AuditVerified},
    errors=[errors.Forbidden, errors.NotFound, errors.Invalid, errors.RateLimited, errors.Overloaded],
    tag="Admin",
    query={"workspace": _WORKSPACE, "after_seq": {"type": "integer", "description": "Begin after this link"}},
)
@guard()
def verify_audit() -> Response:
    refuse_other_parameters()
    text = request.args.get("after_seq", "0")
    after = whole_number(text)
    if after is None or len(text) > 18:
        raise fault("/after_seq", "Send the `seq` of a `head`.")
    verifier = Verifier(services().infra.db, _workspace(), seconds=VERIFY_SECONDS)
    with reading_place():
        return json_response(verifier.verify(after).public())


def _workspace() -> str:
    """Read `?workspace=`. Raises `NotFound` for one that the caller does not see."""
    caller, asked = current_caller(), request.args.get("workspace")
    if asked in (None, caller.workspace_id):
        return caller.workspace_id
    if caller.confined_to is not None:
        raise NotFound("There is no such workspace.")
    return read.known(services().infra.db, asked[:MAX_TEXT])


def _filter() -> Filter:
    """Read the filters. Raises `Invalid`."""
    given = {name: request.args.get(name) for name in _ONE_OF}
    if sum(value is not None for value in given.values()) > 1:
        raise fault("/subject", "One of action, user and subject.")
    choice_argument("action", list(Action))
    bounds = {}
    for name, bound in (("from", "since"), ("to", "until")):
        if (text := request.args.get(name)) is not None:
            bounds[bound] = first_id("aud", max(0, moment(name, text, end=name == "to")))
    return Filter(_workspace(), **given, **bounds)
