"""Runs of schedules have the rights that their owner has at that moment."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.audit.record import Action
from service.store import keys
from service.store.schema import audit
from service.types import Caller
from tests.made import close
from tests.schedules.house import MINUTE, NOON, House


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


@pytest.mark.parametrize(
    ("setting", "code"), [("LIMIT_QUEUED_RUNS", "rate_limited"), ("MAX_QUEUED_RUNS", "overloaded")]
)
def test_slot_is_refused_where_too_many_runs_wait(
    tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch, setting: str, code: str
) -> None:
    house = House(tmp_path, url, monkeypatch, **{setting: "1"})
    schedule_id = house.add()
    house.dispatch(NOON + MINUTE)
    house.dispatch(NOON + 2 * MINUTE)
    assert house.slots(schedule_id) == [(1, 1, "run", None), (2, 2, "refused", code)]
    assert house.schedule(schedule_id)["enabled"]
    close(house.app)


def scoped(house: House, *scopes: str) -> Caller:
    key = house.services.auth.keys.create(house.ada.id, "k", scopes)
    return Caller(house.ada.id, "ada", "user", scopes, key_id=key["id"])


def rescope(house: House, caller: Caller, *scopes: str) -> None:
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


def test_change_by_a_key_gives_the_schedule_the_rights_of_that_key(house: House) -> None:
    schedule_id = house.add()
    house.services.schedules.change(scoped(house, "tools:read"), schedule_id, {"input": "Another."})
    house.dispatch(NOON + MINUTE)
    [run] = house.runs(schedule_id)
    assert house.services.runs.queries.get(run["id"]).request.tool_scopes == ["tools:read"]
