"""Numbers of a run's events, and which of them the next stored step holds."""

from __future__ import annotations

from typing import Any

from service.runs.event_log import EventLog
from service.runs.replay import Replay
from service.types import Event, RunEvent
from tests.runs.house import asked, run_of

TEXT = {"text": "a"}


def step(*events: tuple[int, Event, dict[str, Any]]) -> dict[str, Any]:
    return {"events": [list(event) for event in events], "last_seq": events[-1][0]}


def test_events_are_unstored_until_their_step_is_committed() -> None:
    log = EventLog(run_of(asked("Hello")), (), None)
    log.add(Event.STEP_STARTED, {"step": 1})
    log.add(Event.TEXT_DELTA, TEXT)
    log.committed(step=False)  # a transaction without the step, such as a settlement
    assert [event.seq for event in log.unstored] == [1, 2]
    log.committed(step=True)
    assert log.unstored == [] and [event.name for event in log.for_result] == [Event.TEXT_DELTA]


def test_waiting_events_are_numbered_once_however_often_their_transaction_is_tried() -> None:
    log = EventLog(run_of(asked("Hello")), (), None)
    log.add_after_commit(Event.RUN_STARTED, {})
    assert [event.seq for event in log.number_waiting()] == [1]
    log.add_after_commit(Event.USAGE, {"step": 1})
    assert [event.seq for event in log.number_waiting()] == [1, 2]
    log.committed(step=True)
    assert log.number_waiting() == []


def test_log_of_a_later_attempt_goes_on_after_the_stored_steps() -> None:
    run = run_of(asked("Hello"))
    stored = [step((1, Event.RUN_STARTED, {}), (2, Event.TEXT_DELTA, TEXT))]
    run.last_seq = 2
    log = EventLog(run, stored, None)
    assert [event.seq for event in log.for_result] == [2] and log.unstored == []
    assert [event.seq for event in log.add(Event.USAGE, {"step": 1})] == [3]


def test_text_that_cannot_be_encoded_is_replaced_wherever_it_waits() -> None:
    log = EventLog(run_of(asked("Hello")), (), None)
    log.add(Event.TEXT_DELTA, {"text": "\ud800"})
    log.add_after_commit(Event.USAGE, {"model": "\ud800"})
    log.make_storable()
    assert [event.data for event in log.unstored] == [{"text": "\ufffd"}]
    assert [event.data for event in log.number_waiting()] == [{"model": "\ufffd"}]


def test_number_of_an_event_that_nobody_got_is_given_again() -> None:
    """A sub-agent's hold may store the run's last number before another one's event is in the live stream."""
    run = run_of(asked("Hello"))
    run.last_seq = 3
    stored = [step((1, Event.RUN_STARTED, {}))]
    got = Replay([RunEvent(Event.STEP_STARTED, {"step": 1, "branch": "1"}, 2)], 1)
    log = EventLog(run, stored, got)
    assert [event.seq for event in log.add(Event.RUN_RESUMED, {"from_seq": 2})] == [3]
