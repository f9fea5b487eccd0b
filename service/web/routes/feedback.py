"""Feedback of a user on a run."""

from __future__ import annotations

from typing import Annotated, Any

from flask import Blueprint, Response
from pydantic import AfterValidator, Field

from service import errors
from service.store import feedback as rows
from service.store.database import Transaction
from service.types import now_ms
from service.web.admission import guard
from service.web.current import current_caller, services
from service.web.idempotency import once
from service.web.openapi import api
from service.web.schemas import Body, FeedbackShape, feedback_of, no_nul
from service.web.validation import parse

blueprint = Blueprint("feedback", __name__)


class FeedbackBody(Body):
    score: Annotated[int, Field(ge=-1, le=1)]
    comment: Annotated[str, Field(max_length=2_000), AfterValidator(no_nul)] | None = None


class FeedbackView(FeedbackShape):
    run_id: str


@blueprint.post("/v1/runs/<run_id>/feedback")
@api(
    "Send feedback on an own run; later feedback replaces it",
    body=FeedbackBody,
    returns={200: FeedbackView},
    errors=[errors.NotFound, errors.IdempotencyMismatch],
    tag="Runs",
    headers=["Idempotency-Replayed"],
)
@guard()
def give_feedback(run_id: str) -> Response:
    """Store feedback of the run's own user; 404 for every other caller, including operators."""
    body, metrics = parse(FeedbackBody), services().infra.metrics
    # Check access first: the response stored for an Idempotency-Key may belong to a key with wider scopes.
    run = services().runs.queries.get(run_id, current_caller(), own=True)

    def work(tx: Transaction) -> dict[str, Any]:
        row = rows.give(tx, run_id, body.score, body.comment, now_ms())
        if row is None:
            raise errors.NotFound(f"There is no run {run_id}.")
        tx.after_commit(lambda: metrics.feedback(run.agent, body.score))
        return {"run_id": run_id, **feedback_of(row)}

    return once(work, 200)
