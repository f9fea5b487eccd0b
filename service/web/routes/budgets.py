"""Spending caps, read and set by admins."""

from __future__ import annotations

import re

from flask import Blueprint, Response

from service import errors
from service.errors import NotFound
from service.usage.budgets import SHARED_BY_MANY
from service.usage.caps import Period, nano_of
from service.web.admission import guard
from service.web.current import current_caller, services
from service.web.openapi import api
from service.web.paging import PAGE, WORKSPACE, asked_workspace, page, page_arguments
from service.web.schemas import Amount, Body, BudgetView, Page, json_response
from service.web.validation import parse

blueprint = Blueprint("budgets", __name__)
_ID = "[0-9a-z]{26}"
SCOPE = re.compile(
    rf"service|workspace:wsp_{_ID}|user:usr_{_ID}|key:key_{_ID}|session:ses_{_ID}|agent:[a-z][a-z0-9_-]{{0,63}}",
    re.ASCII,
)


class NewCap(Body):
    """Cap in dollars; null lifts the cap, the default included."""

    amount_usd: Amount | None
    period: Period


class CapView(BudgetView):
    id: str


class CapPage(Page[CapView]): ...


@blueprint.get("/v1/admin/budgets")
@api(
    "List all caps that were set, and the service's; an admin of a workspace sees its caps",
    returns={200: CapPage},
    errors=[errors.Forbidden, errors.Invalid],
    tag="Admin",
    query=PAGE | WORKSPACE,
)
@guard()
def list_budgets() -> Response:
    limit, after = page_arguments()
    found = services().usage.budgets.page(limit=limit + 1, after=after, workspace_id=asked_workspace())
    return json_response(page([{"id": state.cap.id, **state.public()} for state in found], limit))


@blueprint.put("/v1/admin/budgets/<scope>")
@api(
    "Set a cap, effective at once, in the current window too",
    body=NewCap,
    returns={200: CapView},
    errors=[errors.Forbidden, errors.NotFound, errors.Invalid],
    tag="Admin",
)
@guard()
def put_budget(scope: str) -> Response:
    """Set or lift a cap. Its subject must exist: a cap on an unknown id would seem to be in force.

    Admins of a workspace lift none of those that are gone either: whose they were is not known any more.
    """
    within = current_caller().confined_to
    if SCOPE.fullmatch(scope) is None:
        raise NotFound(
            f"There is no scope {scope}: service, workspace:…, user:…, key:…, agent:… or session:…"
        )
    if within is not None and scope.partition(":")[0] in SHARED_BY_MANY:
        raise errors.Forbidden("An admin of the service sets this cap.")
    body = parse(NewCap)
    if body.amount_usd is not None or within is not None:
        services().usage.budgets.look_up(scope, within)
    amount = None if body.amount_usd is None else nano_of(body.amount_usd)
    state = services().usage.budgets.put(scope, body.period, amount)
    return json_response({"id": state.cap.id, **state.public()})
