"""What was used and what it cost; and what the caller may still spend."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from service import errors
from service.errors import Invalid
from service.numerals import whole_number
from service.store.visibility import visible_to
from service.types import rfc3339
from service.usage import report
from service.web.guards import current_caller, guard, services
from service.web.schemas import Shape, api, json_response, page_arguments
from service.web.shapes import BudgetList, budget_list

blueprint = Blueprint("usage", __name__)
LONGEST = timedelta(days=400)
USUAL = timedelta(days=30)
MOST_GROUPS = 1_000  # of an answer, where no limit is given; each takes some 600 bytes at most


class UsageLine(Shape):
    """The groups that were asked for, and their sums."""

    day: str | None = None
    agent: str | None = None
    model: str | None = None
    user: str | None = None
    calls: int
    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int
    cache_creation_input_tokens: int
    cost_usd: str
    cache_savings_usd: str


class UsageReport(Shape):
    data: list[UsageLine]
    total: UsageLine
    next_cursor: str | None


@blueprint.get("/v1/usage")
@api(
    "Tokens, calls and cost: one's own, for operators everybody's; JSON, or CSV with `Accept: text/csv`",
    returns={200: UsageReport},
    errors=[errors.Invalid],
    tag="Usage",
    also=["text/csv"],
    query={
        "limit": {"type": "integer", "description": "1000 where it is not given"},
        "cursor": {"type": "string"},
        "from": {"type": "string", "description": "A date or a time; 30 days ago when not given"},
        "to": {
            "type": "string",
            "description": "A date, which is included, or a time, which is not; else now",
        },
        "group_by": {"type": "string", "description": "Any of day, agent, model, user, with commas between"},
    },
)
@guard()
def usage() -> Response:
    by = _groups()
    since, until = _span()
    limit, offset = _window()
    asked: dict[str, Any] = {"since": since, "until": until, "visible": visible_to(current_caller())}
    lines = report.usage(services().db, by=by, limit=limit + 1, offset=offset, **asked)
    more = len(lines) > limit
    cursor = str(offset + limit) if more else None
    if request.accept_mimetypes.best_match(["application/json", "text/csv"]) == "text/csv":
        return _csv(report.as_csv(lines[:limit], by), cursor)
    [total] = report.usage(services().db, by=(), limit=1, offset=0, **asked) if by else lines
    span = {"from": rfc3339(since), "to": rfc3339(until)}
    return json_response(
        {**span, "group_by": by, "data": lines[:limit], "total": total, "next_cursor": cursor}
    )


@blueprint.get("/v1/budget")
@api("What the caller has spent, reserved and left", returns={200: BudgetList}, tag="Usage")
@guard()
def budget() -> Response:
    return json_response(budget_list(services().budgets.of_caller(current_caller())))


def _window() -> tuple[int, int]:
    """How many groups, and how many before them: the cursor of a list that is made anew each time."""
    limit, cursor = page_arguments(default=MOST_GROUPS)
    skipped = whole_number(cursor or "0")
    if skipped is None:
        raise _wrong("cursor", "Not a cursor.")
    return limit, skipped


def _csv(text: str, cursor: str | None) -> Response:
    """CSV has no room for a cursor: the next page's address is in `Link` (RFC 8288)."""
    response = Response(text, mimetype="text/csv")
    if cursor is not None:
        query = urlencode({**request.args.to_dict(), "cursor": cursor})
        response.headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return response


def _groups() -> list[str]:
    text = request.args.get("group_by", "day")
    by = [name for name in text.split(",") if name]
    if len(set(by)) != len(by) or not set(by) <= set(report.GROUPS):
        raise _wrong("group_by", f"Any of {', '.join(report.GROUPS)}, each once, with commas between.")
    return by


def _span() -> tuple[int, int]:
    """Milliseconds, the end not included."""
    text = request.args.get("to")
    until = int(time.time() * 1000) + 1 if text is None else _moment("to", text, end=True)
    text = request.args.get("from")
    since = until - int(USUAL.total_seconds() * 1000) if text is None else _moment("from", text, end=False)
    if not 0 <= since < until or until - since > LONGEST.total_seconds() * 1000:
        raise _wrong("from", f"It must be before `to`, by {LONGEST.days} days at most.")
    return since, until


def _moment(name: str, text: str, *, end: bool) -> int:
    try:
        if not text.isascii():  # `fromisoformat` takes any character between date and time
            raise ValueError
        if len(text) == 10:
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return int((day + timedelta(days=1 if end else 0)).timestamp() * 1000)
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise _wrong(name, "A date such as 2026-11-21, or a time such as 2026-11-21T06:00:00Z.") from None


def _wrong(name: str, detail: str) -> Invalid:
    faults: Any = [{"pointer": f"/{name}", "detail": detail}]
    return Invalid("The request does not fit; see `errors`.", errors=faults)
