"""Lists: their query arguments, and pages that are bounded by count and by size."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import orjson
from flask import Response, current_app, request

from service.errors import FieldFault, Invalid, fault
from service.text.numerals import whole_number
from service.text.suggest import did_you_mean
from service.web.body import pointer
from service.web.current import current_caller
from service.web.validation import MAX_FAULTS

PAGE = {"limit": {"type": "integer"}, "cursor": {"type": "string"}}  # of every list, for `api`
WORKSPACE = {
    "workspace": {"type": "string", "description": "Id of one; admins of the service may ask for any"}
}
MAX_LIST = 1000 * 1024  # bytes of a list's items; the whole response is at most 1 MiB
MAX_FIELD = 96 * 1024  # bytes per field of an oversized item; of a text, six per character


def page_arguments(default: int = 20, longest_cursor: int = 128) -> tuple[int, str | None]:
    """Read `?limit=` (1 to 100; else `default`, which may be more) and `?cursor=`.

    Raises `Invalid` for bad values, and for a parameter that the route does not have: a misspelt filter would be
    ignored.
    """
    refuse_other_parameters()
    text = request.args.get("limit")
    limit = default if text is None else whole_number(text)
    if limit is None or (text is not None and not 1 <= limit <= 100):
        raise fault("/limit", "Send a number from 1 to 100.", "`limit` is 1 to 100.")
    cursor = request.args.get("cursor") or None
    if cursor is not None and len(cursor) > longest_cursor:
        raise no_cursor()
    return limit, cursor


def no_cursor() -> Invalid:
    return fault("/cursor", "Not a cursor.", "`cursor` is not one of ours.")


def refuse_other_parameters() -> None:
    """Raise `Invalid` for query parameters that are repeated, or missing in the route's description (`api`)."""
    described = getattr(current_app.view_functions.get(request.endpoint or ""), "__api__", None)
    if described is None:
        return
    known = described.query
    unknown = [name for name in request.args if name not in known][:MAX_FAULTS]
    errors: list[FieldFault] = [
        {"pointer": pointer([name]), "detail": f"There is no such parameter{did_you_mean(name, known)}"}
        for name in unknown
    ]
    errors += [
        {"pointer": pointer([name]), "detail": "Once at most."}
        for name in known
        if len(request.args.getlist(name)) > 1
    ]
    if errors:
        raise Invalid("The query does not fit; see `errors`.", errors=errors)


def choice_argument(name: str, allowed: Sequence[str]) -> str | None:
    """Read an optional query argument that is one of `allowed`. Raises `Invalid`."""
    value = request.args.get(name)
    if value is not None and value not in allowed:
        names = ", ".join(allowed)
        raise fault(f"/{name}", f"Send one of {names}.", f"`{name}` is one of {names}.")
    return value


def moment(name: str, text: str, *, end: bool) -> int:
    """Read a date or time (RFC 3339; without a zone UTC) as ms; a date that is an `end` includes its day.

    Raises `Invalid`.
    """
    try:
        if not text.isascii():  # `fromisoformat` accepts any character between date and time
            raise ValueError
        if len(text) == 10:
            day = datetime.combine(date.fromisoformat(text), datetime.min.time(), UTC)
            return int((day + timedelta(days=1 if end else 0)).timestamp() * 1000)
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise fault(
            f"/{name}", "A date such as 2026-11-21, or a time such as 2026-11-21T06:00:00Z."
        ) from None


def link_next(response: Response, cursor: str | None) -> Response:
    """Add the next page's URL as `Link` (RFC 8288), for media types without a field for a cursor."""
    if cursor is not None:
        query = urlencode({**request.args.to_dict(), "cursor": cursor})
        response.headers["Link"] = f'<{request.path}?{query}>; rel="next"'
    return response


def asked_workspace() -> str | None:
    """Return the workspace that a list for admins is of: `?workspace=`, or the caller's; None: all of them.

    Of another than the caller's there is nothing, as of one that does not exist.
    """
    asked, own = request.args.get("workspace"), current_caller().confined_to
    if own is None:
        return asked or None
    return own if asked in (None, own) else ""


def page(
    rows: Sequence[dict[str, Any]], limit: int, key: str = "id", space: int = MAX_LIST
) -> dict[str, Any]:
    """Build a page from `limit + 1` rows: as many of them as fit `space` bytes.

    A page may therefore be shorter than `limit`; `next_cursor` leads on. A row that is too large by itself is cut.
    """
    shown: list[dict[str, Any]] = []
    for row in rows[:limit]:
        size = len(orjson.dumps(row)) + 1
        if size > space and shown:
            break
        shown.append(row if size <= space else _cut(row))
        space -= size
    more = len(rows) > len(shown)
    return {"data": shown, "next_cursor": shown[-1][key] if more else None}


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    """Cut the large fields of a row; `truncated` names them."""
    large = [name for name, value in row.items() if len(orjson.dumps(value)) > MAX_FIELD]
    small = {name: _cut_value(row[name]) for name in large}
    return {**row, **small, "truncated": large}


def _cut_value(value: Any) -> Any:
    return value[: MAX_FIELD // 6] if isinstance(value, str) else type(value)()
