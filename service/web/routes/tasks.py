"""The third door to a run: queue it, and be told when it has ended."""

from __future__ import annotations

from flask import Blueprint, Response, g

from service import errors
from service.web.guards import allowed_agent, current_caller, guard, services
from service.web.idempotent import idempotency_key
from service.web.limits import limit_action, limit_runs, limit_session
from service.web.schemas import Shape, api, json_response, parse
from service.web.shapes import Queued, TaskBody

blueprint = Blueprint("tasks", __name__)


class WebhookSecret(Shape):
    secret: str


@blueprint.post("/v1/agents/<agent>/tasks")
@api(
    "Ask an agent and do not wait",
    body=TaskBody,
    returns={202: Queued},
    errors=[
        errors.NotFound,
        errors.SessionBusy,
        errors.Invalid,
        errors.IdempotencyMismatch,
        errors.RateLimited,
        errors.DatabaseUnavailable,
    ],
    tag="Agents",
    headers=("Location", "Idempotency-Replayed"),
)
@guard()
@limit_runs
@limit_action("task")
def queue_task(agent: str) -> Response:
    """The row first; the message that wakes a worker goes out after it, and may get lost."""
    name = allowed_agent(agent).id
    body = parse(TaskBody)
    if body.callback_url is not None:
        services().webhooks.check(body.callback_url)
    asked = body.request(name)
    limit_session(asked.session_id)
    started = services().runs.queue(current_caller(), asked, idempotency_key(), g.request_id)
    headers = {"Location": f"/v1/runs/{started.run.id}"}
    if started.replayed:
        headers["Idempotency-Replayed"] = "true"
    else:
        services().wakeup.ring([started.run.id])
    return json_response({"run_id": started.run.id, "status": started.run.status}, 202, headers)


@blueprint.get("/v1/webhooks/secret")
@api(
    "What signs the webhooks of my runs",
    returns={200: WebhookSecret},
    errors=[errors.Forbidden],
    tag="Agents",
)
@guard()
def webhook_secret() -> Response:
    caller = current_caller()
    if caller.key_id is not None or caller.scopes:  # a key that leaked must not be able to forge deliveries
        raise errors.Forbidden("Sign in to do this; an API key cannot.")
    return json_response({"secret": services().webhooks.secret_of(caller.user_id)})
