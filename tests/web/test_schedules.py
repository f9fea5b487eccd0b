"""Schedules over HTTP: fields, faults, rights, what a schedule tells, and its runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from werkzeug.test import TestResponse

from service.audit.record import Action
from service.store.schedules import MAX_SCHEDULES
from service.types import Caller, rfc3339
from tests.made import close
from tests.schedules.house import MINUTE, NOON, House
from tests.tables import ON_SQLITE
from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
NEW = {"agent": "assistant", "input": "Report.", "cron": "0 6 * * MON-FRI", "timezone": "Europe/Berlin"}


class Asked:
    """Requests as Ada, or by one of her keys."""

    def __init__(self, house: House, *scopes: str, user: str | None = None) -> None:
        self.house = house
        key = house.services.auth.keys.create(user or house.ada.id, "k", scopes)
        self.caller = Caller(house.ada.id, "ada", "user", scopes, key_id=key["id"])
        self._headers = {"X-Api-Key": key["key"]}

    def __call__(self, name: str, body: Any = None, **more: Any) -> TestResponse:
        method, path = name.split(" ")
        headers = self._headers | more.pop("headers", {})
        client = self.house.app.test_client()
        return client.open(f"/v1/{path}", method=method, json=body, headers=headers, buffered=True, **more)

    def new(self, **fields: Any) -> dict[str, Any]:
        answer = self("POST schedules", NEW | fields)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.get_json()
        return made


@pytest.fixture
def house(tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    made = House(tmp_path, url, monkeypatch)
    yield made
    close(made.app)


@pytest.fixture
def ada(house: House) -> Asked:
    return Asked(house)


def test_schedule_is_answered_with_its_next_slot(house: House, ada: Asked) -> None:
    made = ada.new(cap_usd="0.50", missed="all")
    assert made["id"].startswith("sch_") and made["user_id"] == house.ada.id
    assert {name: made[name] for name in NEW} == NEW
    assert (made["missed"], made["cap_usd"], made["enabled"], made["session_id"]) == (
        "all",
        "0.500000",
        True,
        None,
    )
    expected = house.services.schedules.get(made["id"]).row["next_at"]
    assert made["next_at"] == rfc3339(expected) and made["next_at"].endswith("T05:00:00.000Z")
    assert (made["stopped"], made["input"]) == (None, "Report.")
    defaults = ada("POST schedules", {name: NEW[name] for name in ("agent", "input", "cron")}).get_json()
    assert (defaults["timezone"], defaults["missed"]) == ("UTC", "skip")
    assert ada.new(enabled=False)["next_at"] is None


def test_list_is_newest_first_and_without_inputs(house: House, ada: Asked) -> None:
    ids = [ada.new()["id"] for _ in range(3)][::-1]
    first = ada("GET schedules?limit=2").get_json()
    rest = ada(f"GET schedules?limit=2&cursor={first['next_cursor']}").get_json()
    assert [each["id"] for each in first["data"] + rest["data"]] == ids and rest["next_cursor"] is None
    assert "input" not in first["data"][0]
    scoped = Asked(house, "agents:support")
    assert scoped("GET schedules").get_json()["data"] == []


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"cron": "* * * *"}, "/cron"),
    ({"cron": "61 * * * *"}, "/cron"),
    ({"cron": "0 0 30 2 */2"}, "/cron"),
    ({"cron": "*/10 * * * * *"}, "/cron"),
    ({"timezone": "Europe/Nowhere"}, "/timezone"),
    ({"agent": "nobody"}, "/agent"),
    ({"missed": "some"}, "/missed"),
    ({"cap_usd": "0"}, "/cap_usd"),
    ({"cap_usd": "-1"}, "/cap_usd"),
    ({"cap_usd": 1}, "/cap_usd"),
    ({"input": " "}, "/input"),
    ({"session_id": "run_1"}, "/session_id"),
    ({"enabled": "yes"}, "/enabled"),
    ({"next_at": "2026-11-30T00:00:00Z"}, "/next_at"),
]


@ON_SQLITE
def test_fault_is_pointed_at(ada: Asked) -> None:
    made = ada.new()["id"]
    for fields, pointer in FAULTS:
        answers = [ada("POST schedules", NEW | fields)]
        if "agent" not in fields:
            answers.append(ada(f"PATCH schedules/{made}", fields))
        for answer in answers:
            assert answer.status_code == 422, (fields, answer.text)
            assert [fault["pointer"] for fault in answer.get_json()["errors"]] == [pointer], fields


@ON_SQLITE
def test_change_of_nothing_or_to_nothing_is_refused(ada: Asked) -> None:
    made = ada.new()["id"]
    for fields in ({}, {"cron": None}, {"enabled": None}, {"agent": "support"}):
        assert ada(f"PATCH schedules/{made}", fields).status_code == 422, fields


def test_session_must_be_ones_own_and_of_the_agent(house: House, ada: Asked) -> None:
    other = ada("POST sessions", {"agent": "support"}).get_json()["id"]
    own = ada("POST sessions", {"agent": "assistant"}).get_json()["id"]
    assert ada("POST schedules", NEW | {"session_id": other}).status_code == 422
    assert ada("POST schedules", NEW | {"session_id": f"ses_{'0' * 26}"}).status_code == 404
    bob = house.services.auth.users.create("bob", "a-password-of-some-length")
    assert Asked(house, user=bob.id)("POST schedules", NEW | {"session_id": own}).status_code == 404
    assert ada.new(session_id=own)["session_id"] == own


def test_change_keeps_what_it_does_not_name(house: House, ada: Asked) -> None:
    made = ada.new(cap_usd="1")
    changed = ada(f"PATCH schedules/{made['id']}", {"cron": "30 12 * * *", "cap_usd": None}).get_json()
    assert changed["next_at"].endswith("T11:30:00.000Z")
    kept = ("id", "agent", "input", "timezone", "missed", "enabled", "created_at")
    assert {name: changed[name] for name in kept} == {name: made[name] for name in kept}
    assert changed["cap_usd"] is None
    paused = ada(f"PATCH schedules/{made['id']}", {"enabled": False}).get_json()
    assert (paused["enabled"], paused["next_at"]) == (False, None)
    assert ada(f"PATCH schedules/{made['id']}", {"enabled": True}).get_json()["next_at"] == changed["next_at"]


def test_schedule_tells_its_last_runs_and_what_it_missed(house: House, ada: Asked) -> None:
    made = ada.new(cron="* * * * *")
    for minute in (1, 2, 3, 4, 5, 6, 30):
        house.dispatch(NOON + minute * MINUTE)
    found = ada(f"GET schedules/{made['id']}").get_json()
    slots = [rfc3339(NOON + minute * MINUTE) for minute in (30, 6, 5, 4, 3)]
    assert [run["slot_at"] for run in found["last_runs"]] == slots
    assert {run["status"] for run in found["last_runs"]} == {"queued"}
    [missed] = found["last_missed"]
    assert (missed["slot_at"], missed["until_at"]) == tuple(rfc3339(NOON + n * MINUTE) for n in (7, 29))
    assert (missed["outcome"], missed["code"]) == ("skipped", "missed")


def test_runs_of_a_schedule_are_listed(house: House, ada: Asked) -> None:
    made, other = ada.new(cron="* * * * *"), ada.new(cron="* * * * *")
    for minute in (1, 2, 3):
        house.dispatch(NOON + minute * MINUTE)
    listed = ada(f"GET runs?schedule={made['id']}&limit=2").get_json()
    assert len(listed["data"]) == 2 and listed["next_cursor"]
    last = ada(f"GET runs?schedule={made['id']}&limit=2&cursor={listed['next_cursor']}").get_json()["data"]
    shown = [run["run_id"] for run in listed["data"] + last]
    assert shown == [run["run_id"] for run in ada(f"GET schedules/{made['id']}").get_json()["last_runs"]]
    assert {run["door"] for run in listed["data"]} == {"schedule/task"}
    assert ada(f"GET runs?schedule={other['id']}&status=queued").get_json()["data"] != []
    assert ada(f"GET runs?schedule={other['id']}&status=failed").get_json()["data"] == []
    assert Asked(house, "agents:support")(f"GET runs?schedule={made['id']}").get_json()["data"] == []
    both = ada(f"GET runs?schedule={made['id']}&session_id=ses_1")
    assert (both.status_code, both.get_json()["errors"][0]["pointer"]) == (422, "/schedule")


def test_deleted_schedule_is_gone_and_its_runs_are_not(house: House, ada: Asked) -> None:
    made = ada.new(cron="* * * * *")
    house.dispatch(NOON + MINUTE)
    assert ada(f"DELETE schedules/{made['id']}").status_code == 204
    for name in ("GET", "DELETE"):
        assert ada(f"{name} schedules/{made['id']}").status_code == 404
    assert len(ada(f"GET runs?schedule={made['id']}").get_json()["data"]) == 1


def test_same_key_creates_one_schedule(ada: Asked) -> None:
    answers = [ada("POST schedules", NEW, headers={"Idempotency-Key": "one"}) for _ in range(2)]
    assert answers[0].get_json() == answers[1].get_json()
    assert answers[1].headers["Idempotency-Replayed"] == "true"
    assert len(ada("GET schedules").get_json()["data"]) == 1


def test_user_has_a_bounded_number(house: House, ada: Asked) -> None:
    for _ in range(MAX_SCHEDULES):
        house.add()
    refused = ada("POST schedules", NEW)
    assert (refused.status_code, refused.get_json()["code"]) == (409, "too_many")


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        ("agents:support", 422),
        ("models:other", 403),
        ("actions:schedules:read", 403),
        ("actions:schedules:write", 403),  # may not start runs
        ("agents:assistant", 201),
    ],
)
def test_key_creates_what_it_may_run(house: House, scope: str, status: int) -> None:
    answer = Asked(house, scope)("POST schedules", NEW)
    assert answer.status_code == status, answer.text


def test_key_with_both_actions_creates(house: House) -> None:
    assert (
        Asked(house, "actions:schedules:write", "actions:runs:write")("POST schedules", NEW).status_code
        == 201
    )


def test_changes_are_audited(house: House, ada: Asked) -> None:
    made = ada.new()
    ada(f"PATCH schedules/{made['id']}", {"input": "Another.", "enabled": False})
    ada(f"DELETE schedules/{made['id']}")
    of_it = sa.text("SELECT action, details, user_id, key_id FROM audit WHERE subject = :subject ORDER BY id")
    with house.services.infra.db.engine.connect() as connection:
        found = connection.execute(of_it, {"subject": f"schedule:{made['id']}"}).all()
    actions = [Action.SCHEDULE_CREATED, Action.SCHEDULE_CHANGED, Action.SCHEDULE_DELETED]
    assert [row[0] for row in found] == actions
    assert "Another." not in str(found) and "enabled" in str(found[1][1])
    assert {(row[2], row[3]) for row in found} == {(house.ada.id, ada.caller.key_id)}
