"""Usage and cost as JSON pages or a CSV sheet; the caller's budget."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta

from flask import Blueprint, Response, request
from itsdangerous import BadData, URLSafeSerializer

from service import errors
from service.errors import fault
from service.store.usage import UNROLLED, UsageQuery, Values
from service.store.visibility import visible_to
from service.types import now_ms, rfc3339
from service.usage import reports
from service.usage.reports import Cursor
from service.web.admission import guard, reading_place
from service.web.current import current_caller, services
from service.web.openapi import api
from service.web.paging import link_next, moment, page_arguments
from service.web.recheck import while_admitted
from service.web.schemas import BudgetList, Shape, budget_list, json_response

log = logging.getLogger("slipway.request")
blueprint = Blueprint("usage", __name__)
MAX_SPAN = timedelta(days=400)
MAX_UNROLLED = timedelta(days=31)  # of reports summed over single calls
USUAL = timedelta(days=30)
SHEET_SECONDS = 900.0  # time limit of a sheet, after which it is aborted
MAX_GROUPS = 1_000  # groups per response without a limit; at most some 600 bytes each
MAX_CURSOR = 2048  # characters; the longest names make a cursor of some 1,500


class UsageLine(Shape):
    """Sums of one group; only the fields named in `group_by` are set.

    `hits`, `near_hits` and `coalesced` are answers that no model was asked for, beside the `calls`; the savings are
    what they would have cost, and what the provider's prompt cache and the Batches API saved.
    """

    hour: str | None = None
    day: str | None = None
    agent: str | None = None
    model: str | None = None
    user: str | None = None
    key: str | None = None
    end_user: str | None = None
    workspace: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: str
    hits: int
    near_hits: int
    coalesced: int
    hit_savings_usd: str
    near_savings_usd: str
    coalesced_savings_usd: str
    prompt_cache_savings_usd: str
    batch_savings_usd: str


class UsageReport(Shape):
    data: list[UsageLine]
    total: UsageLine
    next_cursor: str | None


@blueprint.get("/v1/usage")
@api(
    "Report own tokens, calls and cost, for operators their workspace's; JSON, or CSV with `Accept: text/csv`",
    returns={200: UsageReport},
    errors=[errors.Invalid, errors.Overloaded],
    also=["text/csv"],
    query={
        "limit": {"type": "integer", "description": "Default: 1000 lines of JSON, all lines of CSV"},
        "cursor": {"type": "string"},
        "from": {"type": "string", "description": "Date or time, inclusive; default: 30 days ago"},
        "to": {
            "type": "string",
            "description": "Date, inclusive, or time, exclusive; default: now",
        },
        "group_by": {
            "type": "string",
            "description": "Comma-separated list of hour, day, agent, model, user, key, end_user, workspace; `hour` "
            "and `end_user` for 31 days at most",
        },
    },
)
@guard()
def usage() -> Response:
    response = _report()
    response.vary.add("Accept")
    return response


def _report() -> Response:
    query, limit, after = _query()
    as_csv = request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv"
    if as_csv and "limit" not in request.args:
        return _sheet(query, after)
    page = reports.page(services().infra.db, query, limit=limit, after=after)
    following = None if page.next is None else _cursors().dumps(page.next)
    if as_csv:
        return _csv(reports.as_csv(page.lines, query.by), following)
    report = {"from": rfc3339(query.since), "to": rfc3339(query.until), "group_by": query.by}
    return json_response({**report, "data": page.lines, "total": page.total, "next_cursor": following})


@blueprint.get("/v1/budget")
@api("List the caller's caps: spent, reserved and left", returns={200: BudgetList})
@guard()
def budget() -> Response:
    return json_response(budget_list(services().usage.budgets.of_caller(current_caller())))


def _query() -> tuple[UsageQuery, int, Values | None]:
    """Read the requested report, the lines per page, and the group after which the page begins."""
    by = _groups()
    limit, text = page_arguments(default=MAX_GROUPS, longest_cursor=MAX_CURSOR)
    cursor = None if text is None else _cursor(text, by)
    since, until = _span(None if cursor is None else cursor.until)
    if (fine := UNROLLED & {*by}) and until - since > MAX_UNROLLED.total_seconds() * 1000:
        raise fault("/from", f"By {min(fine)} it must be before `to` by {MAX_UNROLLED.days} days at most.")
    query = UsageQuery(since, until, by, visible_to(current_caller()))
    return query, limit, None if cursor is None else cursor.after


def _cursors() -> URLSafeSerializer:
    """Signed cursors: their values, which go into a query, need no other check."""
    return URLSafeSerializer(services().settings.secret_key.get_secret_value(), "usage cursor")


def _cursor(text: str, by: tuple[str, ...]) -> Cursor:
    with suppress(BadData):
        until, groups, after = _cursors().loads(text)
        if groups == [*by]:
            return Cursor(until, by, tuple(after))
    raise fault("/cursor", "Not a cursor of a report with these groups.")


def _sheet(query: UsageQuery, after: Values | None) -> Response:
    """Stream the whole report, in a place of the bulkhead, since a report may take minutes."""
    place = reading_place()
    lines = while_admitted(reports.sheet(services().infra.db, query, seconds=SHEET_SECONDS, after=after))
    try:
        first = next(lines)  # reads the first page: until then, an error can be a problem response
    except BaseException:
        place.give()
        raise

    def body() -> Iterator[str]:
        try:
            yield first
            yield from lines
        except Exception as error:  # the server aborts the response: clients see it is incomplete
            log.warning("csv_aborted", extra={"error": type(error).__name__, "detail": str(error)})
            raise
        finally:
            place.give()

    response = Response(body(), mimetype="text/csv")
    response.call_on_close(place.give)
    return response


def _csv(text: str, cursor: str | None) -> Response:
    return link_next(Response(text, mimetype="text/csv"), cursor)


def _groups() -> tuple[str, ...]:
    text = request.args.get("group_by", "day")
    by = tuple(name for name in text.split(",") if name)
    if len(set(by)) != len(by) or not set(by) <= set(reports.GROUPS):
        raise fault("/group_by", f"Any of {', '.join(reports.GROUPS)}, each once, with commas between.")
    return by


def _span(page_until: int | None) -> tuple[int, int]:
    """Read `?from=` and `?to=` as milliseconds, the end excluded.

    Without `to`, the end is the time of the first page (`page_until`), or now on the first page.
    """
    text = request.args.get("to")
    now = now_ms() + 1 if page_until is None else page_until
    until = now if text is None else moment("to", text, end=True)
    text = request.args.get("from")
    since = until - int(USUAL.total_seconds() * 1000) if text is None else moment("from", text, end=False)
    if since < 0:
        raise fault("/from", "Not before 1970.")
    if since >= until or until - since > MAX_SPAN.total_seconds() * 1000:
        raise fault("/from", f"It must be before `to`, by {MAX_SPAN.days} days at most.")
    return since, until
