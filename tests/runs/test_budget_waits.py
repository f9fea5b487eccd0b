"""Caps that pause: a run that meets a cap waits, tells it once, and goes on once there is room, on both databases."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from service.errors import BudgetExceeded, SessionBusy
from service.runs import budget_waits
from service.runs.runner import MAX_LOSSES
from service.store import schema, sweep
from service.store.sweep import Work
from service.types import NANO, Event, Run, RunStatus, now_ms
from service.usage.ledger import check
from service.wiring import Services
from tests.llm.wire_server import Exchange, WireServer
from tests.runs import inside, scripted, turns
from tests.runs.queueing import add_users
from tests.runs.queueing import queue as queue_of
from tests.runs.scripted import call, calls, holds, message, says, stream_of
from tests.runs.test_kept_output import says_and_calls
from tests.runs.test_stops import count, meanwhile, only_run, taken_up

USER = "user:usr_ada"
ASKS = calls(says("Let me look. "), call("echo", {"text": "a"}))


@pytest.fixture
def wired(kept_in_each: Services, upstream: WireServer) -> Services:
    upstream.otherwise = either
    return kept_in_each


def either(exchange: Exchange) -> None:
    """Answer "Good day.", streamed where that is asked for."""
    (stream_of("Good day.") if exchange.json.get("stream") else message(says("Good day.")))(exchange)


def cap(wired: Services, nano: int | None, scope: str = USER) -> None:
    wired.usage.budgets.put(scope, "day", nano)


def queue(wired: Services, **fields: Any) -> Run:
    asked = inside.request("Do it.", **{"cache": "bypass", "on_cap": "pause", **fields})
    return wired.runs.start.queue(inside.ADA, asked, None, "req").run


def waiting(wired: Services, **fields: Any) -> Run:
    """Return a run that waits for its first call."""
    run = taken_up(wired, queue(wired, **fields))
    assert run.status is RunStatus.WAITING_BUDGET, run.error
    return run


def named(wired: Services, run: Run) -> list[str]:
    return [event.name for event in wired.runs.queries.so_far(run.id)]


def status(wired: Services, run: Run) -> RunStatus:
    return wired.runs.queries.get(run.id).status


def end_of_wait(wired: Services) -> int:
    [row] = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.runs.c.wake_at)))
    return int(row["wake_at"])


def is_sound(wired: Services) -> None:
    assert check(wired.infra.db, wired.usage.prices).faults == []
    assert holds(wired) == 0


def look(wired: Services) -> None:
    """Look as the sweep does, where there is work."""
    due = wired.infra.db.query(lambda tx: sweep.due(tx, "wrk_other"))
    if Work.BUDGET_WAITS in due:
        wired.runs.waits.look()


def test_run_waits_mid_run_tells_it_once_and_goes_on(wired: Services, upstream: WireServer) -> None:
    upstream.script += [meanwhile(lambda: cap(wired, 1), ASKS), message(says("It says a."))]
    run = scripted.ask(wired, on_cap="pause")
    assert (run.status, run.result and run.result["status"]) == (RunStatus.WAITING_BUDGET,) * 2
    assert run.result is not None and run.result["waits_for"]["budget"]["scope"] == USER
    paid = run.cost_nano
    assert paid > 0 and len(upstream.requests) == 1
    is_sound(wired)
    for _ in range(3):
        look(wired)
    assert not wired.runs.execution.take_up(run.id), "claimed while it waits"
    assert status(wired, run) is RunStatus.WAITING_BUDGET
    cap(wired, NANO)
    look(wired)
    ended = taken_up(wired, run)
    assert (ended.status, ended.attempt, ended.losses) == (RunStatus.SUCCEEDED, 2, 0)
    assert ended.result is not None and ended.result["output"] == "It says a."
    assert "waits_for" not in ended.result
    assert len(upstream.requests) == 2 and ended.cost_nano > paid
    assert named(wired, run).count(Event.BUDGET_REQUIRED) == 1
    is_sound(wired)


def test_run_whose_first_call_does_not_fit_is_opened_and_waits(wired: Services, upstream: WireServer) -> None:
    cap(wired, 1)
    run = scripted.ask(wired, on_cap="pause")
    assert run.status is RunStatus.WAITING_BUDGET and only_run(wired).status is run.status
    [started, required] = wired.runs.queries.so_far(run.id)
    assert (started.name, required.name) == (Event.RUN_STARTED, Event.BUDGET_REQUIRED)
    told = required.data
    assert (told["step"], told["budget"]["amount_usd"], told["budget"]["period"]) == (1, "0.000001", "day")
    assert told["needed_usd"] > "0.000000" and told["expires_at"]
    assert wired.runs.queries.result(only_run(wired))["waits_for"] == told
    cap(wired, None)
    look(wired)
    assert taken_up(wired, run).status is RunStatus.SUCCEEDED and len(upstream.requests) == 1
    is_sound(wired)


def test_task_that_goes_on_stands_in_the_line(wired: Services) -> None:
    cap(wired, 1)
    run = queue(wired)
    wired.runs.execution.take_turn(run.id)
    assert status(wired, run) is RunStatus.WAITING_BUDGET
    cap(wired, NANO)
    add_users(wired.infra.db, ["bob"])
    [other] = queue_of(wired.infra.db, "bob")
    look(wired)
    assert status(wired, run) is RunStatus.QUEUED
    assert not wired.runs.execution.waiting.needs_no_turn(run.id)
    assert wired.runs.execution.take_turn(run.id), "Ada has had a turn: it is Bob's"
    assert (status(wired, run), wired.runs.queries.get(other).status.ended) == (RunStatus.QUEUED, True)
    assert wired.runs.execution.take_turn(other)
    assert status(wired, run) is RunStatus.SUCCEEDED
    is_sound(wired)


def test_others_fail_as_ever_and_a_request_has_the_last_word(
    wired: Services, upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap(wired, 1)
    with pytest.raises(BudgetExceeded):
        scripted.ask(wired)
    assert count(wired, schema.runs) == 0
    object.__setattr__(wired.agents.agents["probe"], "on_cap", "pause")
    assert scripted.ask(wired).status is RunStatus.WAITING_BUDGET
    with pytest.raises(BudgetExceeded):
        scripted.ask(wired, on_cap="fail")


def test_stream_ends_with_a_reconnect_and_can_be_followed(wired: Services, upstream: WireServer) -> None:
    asks = says_and_calls("Let me look. ", call("echo", {"text": "a"}))
    upstream.script += [meanwhile(lambda: cap(wired, 1), asks), stream_of("It says a.")]
    told = scripted.tell(wired, on_cap="pause")
    assert [event.name for event in told[-2:]] == [Event.BUDGET_REQUIRED, Event.RECONNECT]
    run = only_run(wired)
    assert wired.runs.queries.wait(run.id).status is RunStatus.WAITING_BUDGET
    cap(wired, NANO)
    look(wired)
    taken_up(wired, run)
    rest = [event for batch in wired.runs.queries.follow(run.id, told[-1].seq) for event in batch]
    assert rest[-1].name is Event.RUN_COMPLETED and scripted.text_of(rest) == "It says a."


def test_as_many_go_on_as_fit_together_oldest_first(
    wired: Services, upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_waits, "PAGE", 2)
    cap(wired, 1)
    runs = [waiting(wired) for _ in range(5)]
    row = wired.infra.db.query(lambda tx: tx.rows(sa.select(schema.steps)))[-1]
    needed = row["reply"]["needed"]
    cap(wired, needed * 5 // 2)
    for _ in range(4):
        look(wired)
    assert [status(wired, run) for run in runs] == [RunStatus.QUEUED] * 2 + [RunStatus.WAITING_BUDGET] * 3


def test_runs_without_room_hide_none_behind_them(
    wired: Services, upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget_waits, "PAGE", 2)
    sessions = [turns.begin(wired) for _ in range(4)]
    for session in sessions:
        cap(wired, 1, f"session:{session}")
    runs = [waiting(wired, session_id=session) for session in sessions]
    cap(wired, NANO, f"session:{sessions[3]}")
    look(wired)
    assert status(wired, runs[3]) is RunStatus.WAITING_BUDGET
    look(wired)
    assert [status(wired, run) for run in runs] == [RunStatus.WAITING_BUDGET] * 3 + [RunStatus.QUEUED]


def test_run_that_lost_its_room_waits_on_without_a_word(wired: Services, upstream: WireServer) -> None:
    cap(wired, 1)
    run = waiting(wired)
    first = end_of_wait(wired)
    for _ in range(MAX_LOSSES + 1):
        cap(wired, NANO)
        look(wired)
        cap(wired, 1)
        assert taken_up(wired, run).status is RunStatus.WAITING_BUDGET
    assert named(wired, run).count(Event.BUDGET_REQUIRED) == 1
    assert end_of_wait(wired) == first, "its time began again"
    is_sound(wired)


def test_wait_ends_with_its_time(
    wired: Services, upstream: WireServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    cap(wired, 1)
    run = waiting(wired)
    look(wired)
    assert status(wired, run) is RunStatus.WAITING_BUDGET
    later = now_ms() + wired.settings.cap_wait_seconds * 1000
    monkeypatch.setattr(budget_waits, "now_ms", lambda: later)
    look(wired)
    ended = taken_up(wired, run)
    assert ended.status is RunStatus.FAILED and ended.error is not None
    assert ended.error["code"] == "budget_exceeded" and upstream.requests == []
    assert named(wired, run)[-1] == Event.RUN_FAILED
    is_sound(wired)


def test_waiting_run_can_be_cancelled(wired: Services, upstream: WireServer) -> None:
    cap(wired, 1)
    run = waiting(wired)
    wired.runs.cancellation.cancel(wired.runs.queries.get(run.id))
    cap(wired, NANO)
    look(wired)
    assert status(wired, run) is RunStatus.CANCELLED
    assert not wired.runs.execution.take_up(run.id)
    assert named(wired, run)[-1] == Event.RUN_CANCELLED


def test_session_stays_with_the_turn_that_waits(wired: Services, upstream: WireServer) -> None:
    session = turns.begin(wired)
    cap(wired, 1, f"session:{session}")
    run = waiting(wired, session_id=session)
    with pytest.raises(SessionBusy):
        scripted.ask(wired, session_id=session)
    second = queue(wired, session_id=session, on_conflict="queue")
    assert not wired.runs.execution.take_up(second.id)
    cap(wired, NANO, f"session:{session}")
    look(wired)
    assert taken_up(wired, run).status is RunStatus.SUCCEEDED
    assert taken_up(wired, second).status is RunStatus.SUCCEEDED


def test_stopped_agent_keeps_its_woken_runs(wired: Services, upstream: WireServer) -> None:
    cap(wired, 1)
    run = waiting(wired)
    wired.infra.db.transact(lambda tx: wired.runs.stops.stop(tx, "probe", "Too dear."))
    cap(wired, NANO)
    look(wired)
    assert not wired.runs.execution.take_up(run.id) and status(wired, run) is RunStatus.QUEUED
    wired.runs.stops.release("probe")
    assert taken_up(wired, run).status is RunStatus.SUCCEEDED
