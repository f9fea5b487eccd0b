"""Spending caps, read and set by admins."""

from __future__ import annotations

from flask import Blueprint, Response, request

from service import errors
from service.errors import NotFound, fault
from service.store.cap_scopes import FORMS, is_scope
from service.usage.budget_windows import SHARED_BY_MANY
from service.usage.caps import Period, nano_of
from service.web.admission import guard
from service.web.current import current_caller, services
from service.web.openapi import api
from service.web.paging import PAGE, WORKSPACE, asked_workspace, page, page_arguments
from service.web.schemas import Amount, Body, BudgetView, Page, Until, json_response
from service.web.validation import parse

blueprint = Blueprint("budgets", __name__)


class NewCap(Body):
    """Cap in dollars; null lifts the cap, the default included. With `until`, what stood before comes back then."""

    amount_usd: Amount | None
    period: Period
    until: Until | None = None


class CapView(BudgetView):
    id: str


class CapPage(Page[CapView]): ...


@blueprint.get("/v1/admin/budgets")
@api(
    "List all caps that were set, and the service's; an admin of a workspace sees its caps",
    returns={200: CapPage},
    errors=[errors.Forbidden, errors.Invalid],
    tag="Admin",
    query=PAGE
    | WORKSPACE
    | {"scope": {"type": "string", "description": "The caps on this scope, its defaults too"}},
)
@guard()
def list_budgets() -> Response:
    limit, after = page_arguments()
    scope, budgets = request.args.get("scope"), services().usage.budgets
    if scope is None:
        found = budgets.page(limit=limit + 1, after=after, workspace_id=asked_workspace())
    elif is_scope(scope):
        found = budgets.of_scope(scope, asked_workspace())
    else:
        raise fault("/scope", f"Send one of {FORMS}.")
    return json_response(page([{"id": state.cap.id, **state.public()} for state in found], limit))


@blueprint.put("/v1/admin/budgets/<path:scope>")
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
    if not is_scope(scope):
        raise NotFound(f"There is no scope {scope}: {FORMS}")
    if within is not None and scope.partition(":")[0] in SHARED_BY_MANY:
        raise errors.Forbidden("An admin of the service sets this cap.")
    body = parse(NewCap)
    if body.amount_usd is not None or within is not None:
        services().usage.budgets.look_up(scope, within)
    amount = None if body.amount_usd is None else nano_of(body.amount_usd)
    state = services().usage.budgets.put(scope, body.period, amount, until=body.until)
    return json_response({"id": state.cap.id, **state.public()})
