"""Runner: every run ends with a last event that names its outcome."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from service.errors import NotFound, Overloaded
from service.runs.attempt import Attempt
from service.runs.journal import Journal
from service.runs.result import problem_of
from service.runs.runner import MAX_LOSSES
from service.runs.slots import Handle
from service.store import runs as rows
from service.store import schema
from service.types import Event, Run, RunEvent, RunStatus
from service.wiring import Services
from tests.runs import inside


def taken(wired: Services, attempts: int = 1, **fields: object) -> Run:
    """Claim a queued run so many times, and set fields of it."""
    run_id = wired.runs.start.queue(inside.ADA, inside.request("What time is it?"), None, "req").run.id
    free = sa.update(schema.runs).values(status=RunStatus.QUEUED, worker_id=None)
    for _ in range(attempts):
        wired.infra.db.transact(lambda tx: tx.execute(free))
        assert wired.infra.db.transact(lambda tx: rows.claim(tx, run_id, wired.runs.execution.worker_id))
    run = wired.runs.queries.get(run_id)
    for name, value in fields.items():
        setattr(run, name, value)
    return run


def execute(wired: Services, run: Run) -> list[RunEvent]:
    """Every event of an attempt at the run."""
    journal = Journal(wired.infra.db, run, lambda events: None)
    attempt = Attempt(run, journal, Handle(run.id, 60, run.attempt))
    return list(wired.runs.execution.runner.execute(attempt))


def test_run_starts_and_ends_with_an_event(wired: Services) -> None:
    run = taken(wired)
    told = execute(wired, run)
    assert (told[0].name, told[-1].name) == (Event.RUN_STARTED, Event.RUN_COMPLETED)
    assert [event.seq for event in told] == list(range(1, len(told) + 1))
    found = wired.runs.queries.get(run.id)
    assert (found.status, found.result) == ("succeeded", told[-1].data)


def test_resumed_run_publishes_run_resumed(wired: Services) -> None:
    told = execute(wired, taken(wired, attempts=2))
    assert [event.name for event in told[:2]] == [Event.RUN_STARTED, Event.RUN_RESUMED]


def test_run_at_the_limit_of_lost_workers_fails_without_cost(wired: Services) -> None:
    run = taken(wired, losses=MAX_LOSSES)
    last = execute(wired, run)[-1]
    assert (last.name, run.error and run.error["code"]) == (Event.RUN_FAILED, "worker_lost")
    assert wired.runs.queries.get(run.id).cost_nano == 0


def test_run_without_its_agent_is_left_to_other_workers_until_the_limit(wired: Services) -> None:
    with pytest.raises(NotFound):
        execute(wired, taken(wired, agent="gone"))
    lost = execute(wired, taken(wired, agent="gone", losses=MAX_LOSSES))
    assert [event.name for event in lost] == [Event.RUN_FAILED]
    cancelled = execute(wired, taken(wired, agent="gone", cancel_requested=True))
    assert [event.name for event in cancelled] == [Event.RUN_CANCELLED]


def test_problem_names_run_request_and_retry_after(wired: Services) -> None:
    run = taken(wired)
    problem = problem_of(Overloaded("Come back.", retry_after=3), run)
    assert problem["instance"] == f"/v1/runs/{run.id}" and problem["request_id"] == "req"
    assert (problem["code"], problem["retry_after"]) == ("overloaded", 3)
