"""Forks of runs."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from flask import Blueprint, Response
from pydantic import Field

from service import errors
from service.runs.forks import Wanted
from service.types import RunRequest
from service.web.admission import admit, guard
from service.web.current import current_caller, services
from service.web.openapi import api
from service.web.run_responses import QUEUED_ERRORS, queued
from service.web.schemas import Body, ModelText, Queued
from service.web.validation import parse

blueprint = Blueprint("forks", __name__)


class ForkBody(Body):
    """Fork of a run. `from_step`: the first step that is made anew, by its number in `step_list`.

    `prompt` replaces the agent's own, and `model` the models of its tiers: for operators.
    """

    from_step: Annotated[int, Field(ge=1, le=1_000_000)]
    prompt: ModelText | None = None
    model: Annotated[str, Field(min_length=1, max_length=128)] | None = None


@blueprint.post("/v1/runs/<run_id>/fork")
@api(
    "Fork a run: queue it again from a kept step, its tools answered from the record",
    body=ForkBody,
    returns={202: Queued},
    errors=(*QUEUED_ERRORS, errors.Forbidden, errors.NotForkable),
    tag="Runs",
    headers=("Location", "Idempotency-Replayed"),
)
@guard(counts="run")
def fork_run(run_id: str) -> Response:
    """Queue the fork as a run of the caller, who pays for its model calls; nothing else is called."""
    return queued(services().runs.start.queue(*admit("task", partial(_fork, run_id))))


def _fork(run_id: str) -> RunRequest:
    return services().runs.forks.request(current_caller(), run_id, Wanted(**parse(ForkBody).model_dump()))
