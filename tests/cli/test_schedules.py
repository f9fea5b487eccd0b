"""`flask schedules`: list, next slots, missed ones, pause and resume."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from service.store import schedules as rows
from service.types import Caller
from service.wiring import Services
from tests.cli.house import Flask_, env, flask, services, table, whole

__all__ = ["env", "flask", "services", "whole"]


@pytest.fixture
def schedule_id(services: Services) -> str:
    user = services.auth.users.by_name("ada")
    assert user is not None
    fields = {"input": "Report.", "cron": "30 2 * * *", "timezone": "Europe/Berlin", "missed": "skip"}
    fields |= {"session_id": None, "cap_nano": 5_000_000, "enabled": True}
    row = services.schedules.new(Caller(user.id, "ada", "user"), "assistant", fields)
    return str(services.infra.db.transact(lambda tx: services.schedules.insert(tx, row))["id"])


def test_schedules_are_listed_paused_and_resumed(flask: Flask_, schedule_id: str) -> None:
    assert table(flask("schedules", "list"))[0][:4] == ["ID", "USER_ID", "AGENT", "CRON"]
    [listed] = [
        each for each in json.loads(flask("schedules", "list", "--json").stdout) if each["id"] == schedule_id
    ]
    assert (listed["enabled"], listed["cap_usd"]) == (True, "0.005000")
    assert f"Paused {schedule_id}" in flask("schedules", "pause", schedule_id).stdout
    assert "is paused" in flask("schedules", "next", schedule_id).stdout
    assert f"Resumed {schedule_id}, next at" in flask("schedules", "resume", schedule_id).stdout
    assert "There is no schedule sch_none" in flask("schedules", "pause", "sch_none", code=1).output


def test_next_slots_are_told_in_both_times(flask: Flask_, services: Services, schedule_id: str) -> None:
    row = services.schedules.get(schedule_id).row
    gap = int(datetime(2026, 3, 29, 1, tzinfo=UTC).timestamp() * 1000)  # in Berlin 02:30 does not exist
    services.infra.db.transact(lambda tx: rows.update(tx, row, {"next_at": gap}))
    found = json.loads(flask("schedules", "next", schedule_id, "--limit", "2", "--json").stdout)
    assert [slot["local"] for slot in found] == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]
    assert found[1]["utc"] == "2026-03-30T00:30:00.000Z"


def test_missed_slots_are_told(flask: Flask_, services: Services, schedule_id: str) -> None:
    assert "No slot was missed" in flask("schedules", "missed", schedule_id).stdout
    row = services.schedules.get(schedule_id).row
    services.infra.db.transact(lambda tx: rows.update(tx, row, {"next_at": rows.clock(tx) - 86_400_000}))
    services.dispatcher.dispatch()
    [missed] = json.loads(flask("schedules", "missed", schedule_id, "--json").stdout)
    assert (missed["outcome"], missed["code"]) == ("skipped", "missed")
    assert flask("runs", "list", "--schedule", schedule_id).stdout
    assert "not both" in flask("runs", "list", "--schedule", "x", "--session", "y", code=2).output
