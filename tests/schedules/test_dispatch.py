"""Dispatch of due slots: by policy, under jumping clocks, with the owner's rights of that moment, once each."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from service.audit.record import Action
from service.errors import DatabaseUnavailable, NotFound
from service.runs.new_run import NewRuns
from service.schedules.plan import MOST_MISSED
from service.store import schedules as rows
from service.store.schema import audit
from service.types import Caller, RunStatus
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


def test_disabled_owner_stops_the_schedule(house: House) -> None:
    schedule_id, other = house.add(), house.add(caller=bob(house))
    house.services.auth.users.change(house.ada.id, disabled=True)
    house.dispatch(NOON + MINUTE)
    assert house.slots(schedule_id) == [(1, 1, "refused", "invalid_token")]
    found = house.schedule(schedule_id)
    assert (found["enabled"], found["next_at"], found["stopped"]) == (False, None, "invalid_token")
    house.dispatch(NOON + 2 * MINUTE)
    assert house.runs(schedule_id) == []
    assert house.ran(other) == [1, 2]
    [told] = house.rows(audit, audit.c.action == Action.SCHEDULE_STOPPED)
    assert (told["subject"], told["actor"]) == (f"schedule:{schedule_id}", "service")
    assert told["details"] == {"code": "invalid_token"}


def bob(house: House) -> Caller:
    user = house.services.auth.users.create("bob", "a-password-of-some-length")
    return Caller(user.id, "bob", "user")


@pytest.mark.parametrize("end", ["revoked", "expired", "workspace", "deleted"])
def test_ended_right_stops_the_schedule(house: House, end: str) -> None:
    auth = house.services.auth
    row = auth.workspaces.new_row("acme")
    house.services.infra.db.transact(lambda tx: auth.workspaces.insert(tx, row))
    eve = auth.users.create("eve", "a-password-of-some-length", workspace_id=row["id"])
    key = auth.keys.create(eve.id, "k", expires_at=1 if end == "expired" else None)
    caller = Caller(eve.id, "eve", "user", key_id=key["id"], workspace_id=row["id"])
    schedule_id = house.add(caller=caller)
    if end == "revoked":
        auth.keys.revoke(key["id"], eve.id)
    elif end == "workspace":
        auth.workspaces.change(row["id"], disabled=True)
    elif end == "deleted":
        auth.users.delete(eve.id)
    house.dispatch(NOON + MINUTE)
    assert house.slots(schedule_id) == [(1, 1, "refused", "invalid_token")]
    assert house.runs(schedule_id) == []
    assert house.schedule(schedule_id)["stopped"] == "invalid_token"


def scoped(house: House, *scopes: str) -> Caller:
    key = house.services.auth.keys.create(house.ada.id, "k", scopes)
    return Caller(house.ada.id, "ada", "user", scopes, key_id=key["id"])


def rescope(house: House, caller: Caller, *scopes: str) -> None:
    from service.store import keys

    change = {"scopes": list(scopes)}
    house.services.infra.db.transact(lambda tx: keys.change(tx, caller.key_id or "", caller.user_id, change))


@pytest.mark.parametrize(
    ("scope", "code"),
    [("agents:other", "not_found"), ("actions:runs:read", "forbidden"), ("models:other", "forbidden")],
)
def test_lost_scope_refuses_the_slot_and_keeps_the_schedule(house: House, scope: str, code: str) -> None:
    caller = scoped(house, "tools:read")
    schedule_id = house.add(caller=caller)
    house.dispatch(NOON + MINUTE)
    [run] = house.runs(schedule_id)
    assert house.services.runs.queries.get(run["id"]).request.tool_scopes == ["tools:read"]
    rescope(house, caller, scope)
    house.dispatch(NOON + 2 * MINUTE)
    rescope(house, caller)
    house.dispatch(NOON + 3 * MINUTE)
    assert house.slots(schedule_id) == [(1, 1, "run", None), (2, 2, "refused", code), (3, 3, "run", None)]


def test_stopped_agent_and_lost_session_refuse_the_slot(house: House) -> None:
    services = house.services
    session = services.sessions.new(house.caller, "assistant", "", None)
    services.infra.db.transact(lambda tx: services.sessions.create(tx, session))
    schedule_id = house.add(session_id=session["id"])
    house.dispatch(NOON + MINUTE)
    house.dispatch(NOON + 2 * MINUTE)  # waits for its turn in the session
    services.infra.db.transact(lambda tx: services.runs.stops.stop(tx, "assistant", "x"))
    house.dispatch(NOON + 3 * MINUTE)
    services.runs.stops.release("assistant")
    for run in house.runs(schedule_id):
        services.runs.cancellation.cancel(services.runs.queries.get(run["id"]))
    assert services.sessions.delete(session["id"])
    house.dispatch(NOON + 4 * MINUTE)
    told = [(first, outcome, code) for first, _, outcome, code in house.slots(schedule_id)]
    assert told == [
        (1, "run", None),
        (2, "run", None),
        (3, "refused", "agent_stopped"),
        (4, "refused", "not_found"),
    ]
    assert house.schedule(schedule_id)["enabled"]


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


def test_change_by_a_key_gives_the_schedule_the_rights_of_that_key(house: House) -> None:
    schedule_id = house.add()
    house.services.schedules.change(scoped(house, "tools:read"), schedule_id, {"input": "Another."})
    house.dispatch(NOON + MINUTE)
    [run] = house.runs(schedule_id)
    assert house.services.runs.queries.get(run["id"]).request.tool_scopes == ["tools:read"]


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
