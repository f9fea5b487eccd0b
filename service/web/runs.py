"""Runs after they were asked for: list, look, follow, cancel."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from service import errors
from service.runs.result import result_of
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.base import Row
from service.types import Run, RunEvent, RunStatus, rfc3339, usd
from service.web.guards import current_caller, guard, services
from service.web.idempotent import once_again
from service.web.schemas import api, choice_argument, json_response, page, page_arguments
from service.web.shapes import EventList, Queued, RunPage, RunView
from service.web.sse import event_stream, last_seen

blueprint = Blueprint("runs", __name__)


@blueprint.get("/v1/runs")
@api(
    "Runs, newest first",
    returns={200: RunPage},
    errors=[errors.Invalid],
    tag="Runs",
    query={
        "limit": {"type": "integer"},
        "cursor": {"type": "string"},
        "status": {"type": "string"},
        "agent": {"type": "string"},
        "session_id": {"type": "string"},
    },
)
@guard()
def list_runs() -> Response:
    limit, before = page_arguments()
    status = choice_argument("status", [str(status) for status in RunStatus])
    caller = current_caller()
    wanted = {
        "agent": request.args.get("agent"),
        "session_id": request.args.get("session_id"),
        "status": status,
    }
    owner = caller.user_id if caller.role == "user" else None
    found = services().db.query(
        lambda tx: rows.recent(tx, limit=limit + 1, before=before, user_id=owner, **wanted)
    )
    return json_response(page([_view(run) for run in found], limit, key="run_id"))


@blueprint.get("/v1/runs/<run_id>")
@api("One run with its steps and its webhook", returns={200: RunView}, errors=[errors.NotFound], tag="Runs")
@guard()
def get_run(run_id: str) -> Response:
    run = services().watch.get(run_id, current_caller())
    steps = services().db.query(lambda tx: step_rows.of_run(tx, run_id))
    step_list = [_step(step) for step in steps if step["kind"] != "note"]
    webhook = services().webhooks.of_run(run)
    return json_response({**_view(run), "step_list": step_list, "webhook": webhook})


@blueprint.get("/v1/runs/<run_id>/events")
@api(
    "A run's events, from the start or after Last-Event-ID",
    returns={200: EventList},
    errors=[errors.NotFound, errors.RateLimited, errors.Overloaded],
    tag="Runs",
    stream="text/event-stream",
)
@guard()
def run_events(run_id: str) -> Response:
    run = services().watch.get(run_id, current_caller())
    after = last_seen(request.headers.get("Last-Event-ID"), run_id)
    if request.accept_mimetypes.best_match(["text/event-stream", "application/json"]) == "application/json":
        events = services().watch.so_far(run_id, after)
        return json_response({"data": [_event(run_id, event) for event in events], "next_cursor": None})
    place = services().places.take(current_caller().user_id, reads=True)
    return event_stream(run.id, services().watch.follow(run_id, after), place)


@blueprint.post("/v1/runs/<run_id>/cancel")
@api(
    "Cancel a run",
    returns={202: Queued},
    errors=[errors.NotFound, errors.RunFinished, errors.IdempotencyMismatch],
    tag="Runs",
    headers=["Idempotency-Replayed"],
)
@guard()
def cancel_run(run_id: str) -> Response:
    run = services().watch.get(run_id, current_caller())

    def work() -> dict[str, str]:
        services().watch.cancel(run)
        return {"run_id": run_id, "status": services().watch.get(run_id).status}

    return once_again(work, 202)


def _view(run: Run) -> dict[str, Any]:
    result = run.result or result_of(run, None, steps=0, used=())
    return {**result, "status": run.status, "door": run.door}


def _step(step: Row) -> dict[str, Any]:
    return {
        "step": step["n"],
        "kind": step["kind"],
        "name": step["name"],
        "attempt": step["attempt"],
        "started_at": rfc3339(step["started_at"]),
        "finished_at": rfc3339(step["finished_at"]),
        "cost_usd": usd(step["cost_nano"]),
    }


def _event(run_id: str, event: RunEvent) -> dict[str, Any]:
    return {"id": f"{run_id}:{event.seq}", "event": event.name, "data": event.data}
