"""Responses that are kept: found again by their ids, gone on from, cancelled, listed."""

from __future__ import annotations

import re
import time
from contextlib import suppress
from typing import Any

from flask import request

from service import errors
from service.errors import fault
from service.text.numerals import whole_number
from service.types import Run
from service.web.current import current, current_caller, services
from service.web.openai.responses_answer import response_id
from service.web.openai.responses_body import ResponseBody
from service.web.openai.responses_chain import continuable

CANCEL_WAIT = 5.0  # seconds until a worker has stopped a run that is cancelled
MAX_ITEMS = 100  # of a page
_ID = re.compile(r"resp_([0-9a-z]{26})")


def earlier_of(body: ResponseBody) -> Run | None:
    """Find the run that a response goes on from. Raises `PreviousResponseNotFound` and `Invalid`."""
    if body.previous_response_id is None:
        return None
    current().trip.send()  # no look-up for a call that is refused
    return continuable(_find(body.previous_response_id), body.previous_response_id, body.model)


def kept(response_id: str) -> tuple[Run, dict[str, Any]]:
    """Find the run of a response, and the fields that its answers repeat. Raises `ResponseNotFound`."""
    run = _find(response_id)
    if run is None or run.request.asked_as is None:
        raise errors.ResponseNotFound(f"Response with id '{response_id}' not found.")
    return run, run.request.asked_as["fields"]


def _find(response_id: str) -> Run | None:
    """Find the caller's own run of a response, whatever their role."""
    if (match := _ID.fullmatch(response_id)) is None:
        return None
    with suppress(errors.NotFound):
        return services().runs.queries.get(f"run_{match[1]}", current_caller(), own=True)
    return None


def cancelled(run: Run) -> Run:
    with suppress(errors.RunFinished, errors.NotFound):
        services().runs.cancellation.cancel(run)
    return run


def ended(run: Run) -> Run:
    """Return a cancelled run as it is once its worker has stopped it, or after `CANCEL_WAIT` seconds."""
    end = time.monotonic() + CANCEL_WAIT
    while True:
        now = _find(response_id(run.id))
        if now is None:
            raise errors.ResponseNotFound(f"Response with id '{response_id(run.id)}' not found.")
        if now.status.ended or time.monotonic() > end:
            return now
        time.sleep(0.05)


def page_of(items: list[dict[str, Any]], after: str | None) -> dict[str, Any]:
    """Cut the page of items after one of them. Raises `Invalid`."""
    limit = number("limit", 20)
    if not 1 <= limit <= MAX_ITEMS:
        raise fault("/limit", f"must be 1 to {MAX_ITEMS}")
    ids = [item["id"] for item in items]
    if after is not None and after not in ids:
        raise fault("/after", "must be the id of an item of this response")
    begin = 0 if after is None else ids.index(after) + 1
    data = items[begin : begin + limit]
    first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
    more = begin + limit < len(items)
    return {"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": more}


def number(name: str, default: int) -> int:
    """Read a whole number of the query. Raises `Invalid`."""
    text = request.args.get(name)
    found = default if text is None else whole_number(text)
    if found is None:
        raise fault(f"/{name}", "must be a whole number")
    return found


def flag(name: str) -> bool:
    """Read a truth value of the query. Raises `Invalid`."""
    text = request.args.get(name, "false")
    if text not in ("true", "false"):
        raise fault(f"/{name}", "must be true or false")
    return text == "true"
