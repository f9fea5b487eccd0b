"""Caps that pause: a run that meets a cap waits, tells it once, and goes on once there is room, on both databases."""

from __future__ import annotations

from typing import Any

import pytest

from service.store import sweep
from service.store.sweep import Work
from service.types import NANO, Event, Run, RunStatus
from service.usage.ledger import check
from service.wiring import Services
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted
from tests.runs.scripted import call, calls, holds, message, says
from tests.runs.test_stops import meanwhile, taken_up

USER = "user:usr_ada"


@pytest.fixture
def wired(kept_in_each: Services) -> Services:
    return kept_in_each


def cap(wired: Services, nano: int, scope: str = USER) -> None:
    wired.usage.budgets.put(scope, "day", nano)


def queue(wired: Services, **fields: Any) -> Run:
    asked = inside.request("Do it.", **{"cache": "bypass", "on_cap": "pause", **fields})
    return wired.runs.start.queue(inside.ADA, asked, None, "req").run


def names(wired: Services, run: Run) -> list[str]:
    return [event.name for event in wired.runs.queries.so_far(run.id)]


def is_sound(wired: Services) -> None:
    assert check(wired.infra.db, wired.usage.prices).faults == []
    assert holds(wired) == 0


def look(wired: Services) -> None:
    """Look as the sweep does, where there is work."""
    due = wired.infra.db.query(lambda tx: sweep.due(tx, "wrk_other"))
    if Work.BUDGET_WAITS in due:
        wired.runs.waits.look()


def test_run_waits_mid_run_tells_it_once_and_goes_on(wired: Services, upstream: WireServer) -> None:
    asks = calls(says("Let me look. "), call("echo", {"text": "a"}))
    upstream.script += [meanwhile(lambda: cap(wired, 1), asks), message(says("It says a."))]
    run = scripted.ask(wired, on_cap="pause")
    assert (run.status, run.result and run.result["status"]) == (RunStatus.WAITING_BUDGET,) * 2
    assert run.result is not None and run.result["waits_for"]["budget"]["scope"] == USER
    paid = run.cost_nano
    assert paid > 0 and len(upstream.requests) == 1
    is_sound(wired)
    for _ in range(3):
        look(wired)
    assert not wired.runs.execution.take_up(run.id), "claimed while it waits"
    assert wired.runs.queries.get(run.id).status is RunStatus.WAITING_BUDGET
    cap(wired, NANO)
    look(wired)
    ended = taken_up(wired, run)
    assert (ended.status, ended.attempt, ended.losses) == (RunStatus.SUCCEEDED, 2, 0)
    assert ended.result is not None and ended.result["output"] == "It says a."
    assert len(upstream.requests) == 2 and ended.cost_nano > paid
    assert names(wired, run).count(Event.BUDGET_REQUIRED) == 1
    is_sound(wired)
