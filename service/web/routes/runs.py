"""Runs: list, read, follow events, cancel."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response, request

from service import errors
from service.errors import fault
from service.files import references
from service.runs.result import shown
from service.store.database import Row
from service.store.run_lists import RunFilter
from service.store.run_values import usage_of
from service.types import RunEvent, RunStatus, public_fields, usd
from service.web.admission import guard, reading_place
from service.web.current import current, current_caller, services
from service.web.idempotency import once_again
from service.web.openapi import api
from service.web.paging import PAGE, choice_argument, page, page_arguments
from service.web.recheck import still_admitted
from service.web.schemas import (
    FeedbackShape,
    Page,
    Queued,
    RunItem,
    RunResult,
    Shape,
    feedback_of,
    json_response,
)
from service.web.sse import SseLens, last_seen
from service.web.streaming import stream_response

blueprint = Blueprint("runs", __name__)
MAX_EVENTS = 1_000  # events per page without a limit
# Columns that a list shows as they are stored.
_AS_STORED = (
    "session_id agent agent_version user_id door status input stop_reason model tier steps cache created_at "
    "finished_at"
)


class StepShape(Shape):
    step: int
    kind: str
    name: str
    started_at: str
    finished_at: str
    cost_usd: str


class WebhookShape(Shape):
    """Delivery state of the webhook to `callback_url`."""

    url: str
    status: Literal["waiting", "pending", "delivered", "failed"]
    attempts: int
    next_at: str | None
    last_error: str | None
    delivered_at: str | None


class FileShape(Shape):
    """Image or document that came with a run; `digest`: SHA-256 of its content."""

    type: Literal["image", "document"]
    media_type: str
    size: int
    digest: str


class ForkedFrom(Shape):
    """Run that a fork is of, its first step that was made anew, and what replaced the agent's own."""

    run_id: str
    step: int
    model: str | None
    own_prompt: bool


class ForkDifference(Shape):
    """Difference between a run and its fork, from the forked step on; each object has `before` and `after`.

    `output_diff` is null where the answers are long.
    """

    status: dict[str, RunStatus]
    output_same: bool
    output_diff: str | None
    model_calls: dict[str, int]
    tool_calls: dict[str, int]
    cost_usd: dict[str, str]


class RunView(RunResult):
    """Run with the files that came with it, its steps, its webhook if any, and its user's feedback.

    A fork also has the run that it is of and, once it has ended, its difference to that run.
    """

    files: list[FileShape]
    forked_from: ForkedFrom | None
    difference: ForkDifference | None

    step_list: list[StepShape] | None = None
    webhook: WebhookShape | None = None
    feedback: FeedbackShape | None


class RunPage(Page[RunItem]): ...


class EventShape(Shape):
    """Event in the JSON list."""

    id: str
    event: str
    data: dict[str, Any]


class EventList(Page[EventShape]): ...


@blueprint.get("/v1/runs")
@api(
    "List runs, newest first",
    returns={200: RunPage},
    errors=[errors.Invalid],
    query={
        **PAGE,
        "status": {"type": "string"},
        "agent": {"type": "string"},
        "session_id": {"type": "string"},
        "schedule": {"type": "string", "description": "Id of a schedule; not with a session's"},
    },
)
@guard()
def list_runs() -> Response:
    limit, before = page_arguments()
    status = choice_argument("status", [str(status) for status in RunStatus])
    agent, session_id, schedule_id = map(request.args.get, ("agent", "session_id", "schedule"))
    if session_id is not None and schedule_id is not None:
        raise fault("/schedule", "Send `session_id` or `schedule`, not both.")
    filters = RunFilter(status, agent, session_id, schedule_id)
    found = services().runs.queries.page(current_caller(), filters, limit=limit + 1, before=before)
    return json_response(page([_item(row) for row in found], limit, key="run_id"))


@blueprint.get("/v1/runs/<run_id>")
@api("Get a run with its steps, webhook and feedback", returns={200: RunView}, errors=[errors.NotFound])
@guard()
def get_run(run_id: str) -> Response:
    run = services().runs.queries.get(run_id, current_caller())
    steps, rating = services().runs.queries.steps_and_feedback(run_id)
    more = {
        "files": references(run.request.messages),
        "step_list": [_step(step) for step in steps if step["kind"] != "note"],
        "webhook": services().webhooks.of_run(run),
        "feedback": None if rating is None else feedback_of(rating),
        **services().runs.forks.shown(run, current_caller()),
    }
    return json_response({**shown(services().runs.queries.result(run)), **more})


@blueprint.get("/v1/runs/<run_id>/events")
@api(
    "Follow a run's events, from the start or after `Last-Event-ID`",
    returns={200: EventList},
    errors=[errors.NotFound, errors.RateLimited, errors.Overloaded],
    query=PAGE,
    stream="text/event-stream",
)
@guard()
def run_events(run_id: str) -> Response:
    run = services().runs.queries.get(run_id, current_caller())
    after = last_seen(request.headers.get("Last-Event-ID"), run_id)
    if request.accept_mimetypes.best_match(["text/event-stream", "application/json"]) == "application/json":
        return json_response(_event_page(run_id, after))
    place = reading_place()
    events = services().runs.queries.follow(run_id, after, still_admitted(current()))
    return stream_response(SseLens(run.id), events, place)


@blueprint.post("/v1/runs/<run_id>/cancel")
@api(
    "Cancel a run",
    returns={202: Queued},
    errors=[errors.NotFound, errors.RunFinished, errors.IdempotencyMismatch],
    headers=["Idempotency-Replayed"],
)
@guard(counts="end")
def cancel_run(run_id: str) -> Response:
    run = services().runs.queries.get(run_id, current_caller())

    def work() -> dict[str, str]:
        services().runs.cancellation.cancel(run)
        return {"run_id": run_id, "status": services().runs.queries.get(run_id).status}

    return once_again(work, 202)


def _item(row: Row) -> dict[str, Any]:
    usage = usage_of(row).public(row["cost_nano"], "reported")
    del usage["usage_source"]  # stored with the result, which lists do not read
    ended = row["finished_at"]
    item = {
        "run_id": row["id"],
        **public_fields(row, _AS_STORED),
        "usage": usage,
        "latency_ms": None if ended is None else ended - row["created_at"],
    }
    return item if row["error"] is None else {**item, "error": row["error"]}


def _step(step: Row) -> dict[str, Any]:
    fields = public_fields(step, "kind name attempt started_at finished_at")
    return {"step": step["n"], **fields, "cost_usd": usd(step["cost_nano"])}


def _event(run_id: str, event: RunEvent) -> dict[str, Any]:
    return {"id": f"{run_id}:{event.seq}", "event": event.name, "data": shown(event.data)}


def _event_page(run_id: str, after: int) -> dict[str, Any]:
    """Build a page of events; a cursor is the id of the previous page's last event."""
    limit, cursor = page_arguments(default=MAX_EVENTS)
    if cursor is not None and not (after := last_seen(cursor, run_id)):
        raise fault("/cursor", "Not a cursor.")
    events = services().runs.queries.first(run_id, after)
    return page([_event(run_id, event) for event in events[: limit + 1]], limit)
