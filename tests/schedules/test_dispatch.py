"""Dispatch of due slots: by policy, under jumping clocks, once each."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from service.errors import DatabaseUnavailable, NotFound
from service.runs.new_run import NewRuns
from service.schedules.plan import MOST_MISSED
from service.store import schedules as rows
from service.types import RunStatus
from service.wiring import Services
from tests.schedules.house import MINUTE, NOON, House
from tests.twice import WAYS, Way, write_twice


def test_due_slot_becomes_one_queued_run_of_its_owner(house: House) -> None:
    schedule_id = house.add(cap_nano=5_000_000)
    house.dispatch(NOON + MINUTE - 1)
    assert house.runs(schedule_id) == []
    for late in (0, 1, 3_000):
        house.dispatch(NOON + MINUTE + late)
    [row] = house.runs(schedule_id)
    run = house.services.runs.queries.get(row["id"])
    assert (run.user_id, run.door, run.mode, run.status) == (house.ada.id, "schedule/task", "queue", "queued")
    assert (run.request.schedule_id, run.request.cap_nano) == (schedule_id, 5_000_000)
    assert run.request.question == "Report." and run.request_id == schedule_id
    assert house.slots(schedule_id) == [(1, 1, "run", None)]
    assert house.schedule(schedule_id)["next_at"] == NOON + 2 * MINUTE


@pytest.mark.parametrize(
    ("missed", "told"),
    [
        ("skip", [(1, 29, "skipped", "missed"), (30, 30, "run", None)]),
        ("once", [(1, 29, "skipped", "missed"), (30, 30, "run", None)]),
        ("all", [(n, n, "run", None) for n in range(1, 31)]),
    ],
)
def test_missed_slots_follow_the_policy(house: House, missed: str, told: list[Any]) -> None:
    schedule_id = house.add(missed=missed)
    house.dispatch(NOON + 30 * MINUTE)
    assert house.slots(schedule_id) == told
    assert house.ran(schedule_id) == [first for first, _, outcome, _ in told if outcome == "run"]


@pytest.mark.parametrize(("missed", "runs"), [("skip", []), ("once", [180]), ("all", [60, 120, 180])])
def test_slots_that_are_all_late_follow_the_policy(house: House, missed: str, runs: list[int]) -> None:
    schedule_id = house.add("0 * * * *", missed=missed)
    house.dispatch(NOON + 200 * MINUTE)
    assert house.ran(schedule_id) == runs
    told = house.slots(schedule_id)
    assert (told[0][0], told[-1][1]) == (60, 180)


def test_all_runs_no_more_than_its_bound(house: House) -> None:
    schedule_id = house.add(missed="all")
    house.dispatch(NOON + 250 * MINUTE)
    assert house.ran(schedule_id) == list(range(251 - MOST_MISSED, 251))
    assert house.slots(schedule_id)[0] == (1, 250 - MOST_MISSED, "skipped", "missed")


@pytest.mark.parametrize("missed", ["skip", "once", "all"])
def test_clock_that_goes_back_runs_no_slot_twice(house: House, missed: str) -> None:
    schedule_id = house.add(missed=missed)
    for minute in (1, 2, 3, 1, 2, 3, 4, 2, 5):
        house.dispatch(NOON + minute * MINUTE)
    assert house.ran(schedule_id) == [1, 2, 3, 4, 5]
    house.dispatch(NOON)
    # As after a change in that past: the next slot is one that ran.
    house.services.schedules.change(house.caller, schedule_id, {"enabled": True})
    assert house.schedule(schedule_id)["next_at"] == NOON + MINUTE
    for minute in range(1, 8):
        house.dispatch(NOON + minute * MINUTE)
    assert house.ran(schedule_id) == [1, 2, 3, 4, 5, 6, 7]


def test_slots_that_a_clock_jumped_over_are_told_and_run_again_after_a_change_only(house: House) -> None:
    schedule_id = house.add()
    house.dispatch(NOON + 10_000 * MINUTE)
    assert house.slots(schedule_id)[0] == (1, 9_999, "skipped", "missed")
    house.dispatch(NOON + 5 * MINUTE)
    assert house.ran(schedule_id) == [10_000]
    house.services.schedules.enable(schedule_id, enabled=True)
    house.dispatch(NOON + 6 * MINUTE)
    assert house.ran(schedule_id) == [6, 10_000]


def test_pause_resume_and_change_leave_no_slot_untold(house: House) -> None:
    schedule_id = house.add(missed="all")
    house.now = NOON + 3 * MINUTE
    house.services.schedules.enable(schedule_id, enabled=False)
    house.dispatch(NOON + 10 * MINUTE)
    assert house.slots(schedule_id) == [(1, 3, "skipped", "changed")]
    house.services.schedules.enable(schedule_id, enabled=True)
    house.dispatch(NOON + 11 * MINUTE)
    assert house.ran(schedule_id) == [11]
    house.services.schedules.change(house.caller, schedule_id, {"cron": "30 * * * *", "input": "Another."})
    assert house.schedule(schedule_id)["next_at"] == NOON + 30 * MINUTE
    house.dispatch(NOON + 30 * MINUTE)
    assert sorted(run["request"]["messages"][0]["content"] for run in house.runs(schedule_id)) == [
        "Another.",
        "Report.",
    ]


def test_change_between_reading_and_deciding_leaves_the_slot_to_the_next_look(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule_id = house.add()
    make = NewRuns.make

    def changing(self: NewRuns, *given: Any) -> Any:
        monkeypatch.setattr(NewRuns, "make", make)
        house.services.schedules.change(house.caller, schedule_id, {"input": "Another."})
        return make(self, *given)

    monkeypatch.setattr(NewRuns, "make", changing)
    house.dispatch(NOON + MINUTE)
    assert house.runs(schedule_id) == []
    house.dispatch(NOON + MINUTE)
    [run] = house.runs(schedule_id)
    assert run["request"]["messages"][0]["content"] == "Another."


def test_processes_side_by_side_make_one_run_for_each_slot(house: House) -> None:
    ids = [house.add(missed="all") for _ in range(5)]
    made = house.services.dispatcher
    others = [
        type(made)(made.db, made.catalog, made.new_runs, made.wakeup, made.metrics, made.draining)
        for _ in "abc"
    ]
    house.now = NOON + 8 * MINUTE
    threads = [threading.Thread(target=other.dispatch) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    house.dispatch()
    for schedule_id in ids:
        assert house.ran(schedule_id) == list(range(1, 9))


@pytest.mark.parametrize("way", WAYS)
def test_lost_answer_to_a_commit_makes_no_second_run(
    house: House, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule_id = house.add()
    with monkeypatch.context() as patched:
        write_twice(way, patched)
        for minute in (1, 2):
            house.dispatch(NOON + minute * MINUTE)
        house.services.schedules.change(house.caller, schedule_id, {"cap_nano": 7})
        house.services.auth.users.change(house.ada.id, disabled=True)
        house.dispatch(NOON + 3 * MINUTE)
    assert house.ran(schedule_id) == [1, 2]
    assert house.slots(schedule_id)[2:] == [(3, 3, "refused", "invalid_token")]
    assert house.schedule(schedule_id)["cap_nano"] == 7


def test_database_away_leaves_the_slot_due(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    schedule_id = house.add()

    def away(*_: Any) -> None:
        raise DatabaseUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(rows, "decide", away)
        with pytest.raises(DatabaseUnavailable):
            house.dispatch(NOON + MINUTE)
    assert house.runs(schedule_id) == []
    house.dispatch()
    assert house.ran(schedule_id) == [1]


def test_fault_of_one_schedule_keeps_no_other_waiting(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = house.add(timezone="UTC"), house.add()
    broken = {"timezone": "Mars/Olympus"}
    house.services.infra.db.transact(lambda tx: rows.update(tx, house.schedule(first), broken))
    with caplog.at_level(logging.ERROR):
        house.dispatch(NOON + MINUTE)
    assert house.runs(first) == [] and house.ran(second) == [1]
    assert [record.message for record in caplog.records if record.name == "slipway.schedules"] == [
        "schedule_failed"
    ]


def test_run_and_refusal_are_counted_and_logged(house: House, caplog: pytest.LogCaptureFixture) -> None:
    house.add()
    with caplog.at_level(logging.INFO, "slipway.schedules"):
        house.dispatch(NOON + 5 * MINUTE)
        house.services.auth.users.change(house.ada.id, disabled=True)
        house.dispatch(NOON + 6 * MINUTE)
    assert [record.message for record in caplog.records if record.name == "slipway.schedules"] == [
        "schedule_skipped",
        "schedule_run",
        "schedule_refused",
    ]
    text = house.services.infra.metrics.render()[0].decode()
    for outcome in ("skipped", "run", "refused"):
        assert f'slipway_schedule_slots_total{{agent="assistant",outcome="{outcome}"}} 1.0' in text
    assert 'slipway_schedule_late_seconds_count{agent="assistant"} 1.0' in text


def test_run_of_a_schedule_is_stopped_with_its_owner(house: House) -> None:
    schedule_id = house.add()
    house.dispatch(NOON + MINUTE)
    house.services.auth.users.change(house.ada.id, disabled=True)
    [run] = house.runs(schedule_id)
    assert run["status"] == RunStatus.CANCELLED


def test_deleted_schedule_leaves_its_runs(house: House) -> None:
    schedule_id = house.add()
    house.dispatch(NOON + MINUTE)
    house.services.schedules.delete(house.caller, schedule_id)
    assert len(house.runs(schedule_id)) == 1 and house.slots(schedule_id) == []
    with pytest.raises(NotFound):
        house.services.schedules.get(schedule_id)


def test_supervisor_finds_due_schedules_by_the_databases_clock(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from service.store import sweep

    monkeypatch.undo()
    services: Services = house.services
    schedule_id = house.add()
    look = lambda: sweep.Work.SCHEDULES in services.infra.db.query(lambda tx: sweep.due(tx, "w"))  # noqa: E731
    assert not look()
    row = house.schedule(schedule_id)
    services.infra.db.transact(lambda tx: rows.update(tx, row, {"next_at": rows.clock(tx) - 1}))
    assert look()
    services.dispatcher.dispatch()
    assert not look() and len(house.runs(schedule_id)) == 1
