"""Feedback on runs, over both databases: by the run's own user, kept with the run, replaced and deleted."""

from __future__ import annotations

from typing import Any

import pytest

from service.ids import new_id
from service.store import feedback as rows
from service.store import runs
from service.types import now_ms
from service.wiring import Services
from tests.tables import ON_SQLITE
from tests.usage.conftest import postgres_url, url
from tests.web.test_lists import House, house, run_row

__all__ = ["house", "postgres_url", "url"]


def services(house: House) -> Services:
    found: Services = house.app.extensions["slipway"]
    return found


@pytest.fixture
def run_id(house: House) -> str:
    """A finished run of the signed-in admin."""
    made = new_id("run")
    house.add("runs", run_row(house, made, result=None))
    return made


def signed_in(house: House, role: Any) -> dict[str, str]:
    """Sign in as another user."""
    user = services(house).auth.users.create(f"{role}-{new_id('x')}", "a-password-of-some-length", role)
    token = services(house).auth.tokens.begin(user).public()["access_token"]
    return {"Authorization": f"Bearer {token}"}


def give(house: House, run_id: str, body: Any, **headers: str) -> Any:
    path = f"/v1/runs/{run_id}/feedback"
    return house.client.post(path, json=body, headers={**house.signed_in, **headers})


def shown(house: House, run_id: str) -> Any:
    return house.get(f"/v1/runs/{run_id}").json["feedback"]


def test_feedback_is_kept_and_shown_and_replaced(house: House, run_id: str) -> None:
    assert shown(house, run_id) is None
    first = give(house, run_id, {"score": 1, "comment": "Just right."})
    assert first.status_code == 200, first.text
    assert (first.json["run_id"], first.json["score"], first.json["comment"]) == (run_id, 1, "Just right.")
    assert shown(house, run_id) == {name: first.json[name] for name in first.json if name != "run_id"}
    second = give(house, run_id, {"score": -1})
    assert (second.json["score"], second.json["comment"]) == (-1, None)
    assert second.json["created_at"] == first.json["created_at"]
    assert shown(house, run_id)["score"] == -1


def test_only_the_user_of_the_run_gives_feedback(house: House, run_id: str) -> None:
    for role in ("user", "operator", "admin"):
        headers = signed_in(house, role)
        answer = give(house, run_id, {"score": 1}, **headers)
        assert (answer.status_code, answer.json["code"]) == (404, "not_found"), role
    assert give(house, "run_none", {"score": 1}).status_code == 404
    give(house, run_id, {"score": 0, "comment": "So so."})
    told = house.client.get(f"/v1/runs/{run_id}", headers=signed_in(house, "operator"))
    assert told.json["feedback"]["comment"] == "So so."


@pytest.mark.parametrize(
    ("scope", "status"), [("agents:support", 404), ("agents:assistant", 200), ("agents:*", 200)]
)
def test_key_gives_feedback_on_runs_of_its_agents(house: House, run_id: str, scope: str, status: int) -> None:
    key = services(house).auth.keys.create(house.user_id, "a key", (scope,))["key"]
    path = f"/v1/runs/{run_id}/feedback"
    assert house.client.post(path, json={"score": 1}, headers={"x-api-key": key}).status_code == status


FAULTS: list[tuple[Any, str]] = [
    ({}, "/score"),
    ({"score": 2}, "/score"),
    ({"score": -2}, "/score"),
    ({"score": "1"}, "/score"),
    ({"score": True}, "/score"),
    ({"score": 0.5}, "/score"),
    ({"score": None}, "/score"),
    ({"score": 1, "comment": "x" * 2_001}, "/comment"),
    ({"score": 1, "comment": "a\x00b"}, "/comment"),
    ({"score": 1, "comment": 7}, "/comment"),
    ({"score": 1, "stars": 5}, "/stars"),
    ([], ""),
]


@ON_SQLITE
def test_invalid_feedback_is_refused_unchanged(house: House, run_id: str) -> None:
    give(house, run_id, {"score": 1, "comment": "x" * 2_000})
    for body, pointer in FAULTS:
        answer = give(house, run_id, body)
        told = [fault["pointer"] for fault in answer.json.get("errors", ())]
        assert (answer.status_code, told) == (422, [pointer]), (body, answer.text)
        answer.close()  # it has a place until then
    assert (shown(house, run_id)["score"], len(shown(house, run_id)["comment"])) == (1, 2_000)


def test_feedback_under_one_idempotency_key_is_given_once(house: House, run_id: str) -> None:
    first = give(house, run_id, {"score": 1}, **{"Idempotency-Key": "one"})
    give(house, run_id, {"score": -1})
    again = give(house, run_id, {"score": 1}, **{"Idempotency-Key": "one"})
    assert (again.json, again.headers["Idempotency-Replayed"]) == (first.json, "true")
    assert shown(house, run_id)["score"] == -1
    other = give(house, run_id, {"score": 0}, **{"Idempotency-Key": "one"})
    assert (other.status_code, other.json["code"]) == (422, "idempotency_mismatch")


def test_feedback_is_counted_by_agent_and_score(house: House, run_id: str) -> None:
    for score in (1, 1, -1):
        give(house, run_id, {"score": score})
    told = services(house).infra.metrics.render()[0].decode()
    assert 'slipway_feedback_total{agent="assistant",score="1"} 2.0' in told
    assert 'slipway_feedback_total{agent="assistant",score="-1"} 1.0' in told


def test_feedback_is_deleted_with_its_run(house: House, run_id: str) -> None:
    give(house, run_id, {"score": 1})
    db = services(house).infra.db
    assert db.transact(lambda tx: runs.expire(tx, now_ms() + 60_000, 10)) == 1
    assert db.query(lambda tx: rows.of_run(tx, run_id)) is None
    assert db.transact(lambda tx: rows.give(tx, run_id, 1, None, 1)) is None
    assert give(house, run_id, {"score": 1}).status_code == 404


def test_operators_list_feedback(house: House, run_id: str) -> None:
    other = new_id("run")
    house.add("runs", run_row(house, other, result=None, agent="support"))
    give(house, run_id, {"score": 1})
    give(house, other, {"score": -1, "comment": "Wrong."})

    def listed(**wanted: Any) -> list[str]:
        asked = {"agent": None, "score": None, **wanted}
        found = services(house).infra.db.query(lambda tx: rows.recent(tx, limit=10, **asked))
        return [row["run_id"] for row in found]

    assert listed() == [other, run_id]
    assert listed(agent="support") == listed(score=-1) == [other]
    assert listed(agent="assistant", score=-1) == []
