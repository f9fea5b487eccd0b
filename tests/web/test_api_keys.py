"""API keys over HTTP: made, listed, sealed and revoked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from service.auth.users import User
from service.store.schema import metadata
from service.types import NANO
from tests.auth.house import Replica, post
from tests.usage.house import at_once


def test_api_keys_over_http(here: Replica, there: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    body = {"name": "laptop", "scopes": ["agents:plain"], "expires_at": "2030-01-01T00:00:00Z"}
    answer = post(here, "/v1/auth/keys", token, json=body)
    made = answer.get_json()
    assert answer.status_code == 201 and made["expires_at"] == "2030-01-01T00:00:00.000Z"
    key = made["key"]
    for headers in (
        {"X-Api-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"X-Api-Key": key, "Authorization": f"Bearer {key}"},
    ):
        assert there.client().get("/v1/auth/me", headers=headers).get_json()["scopes"] == ["agents:plain"]
    assert post(there, "/v1/agents/plain/invoke", key).status_code == 200
    assert post(there, "/v1/agents/rated/invoke", key).status_code == 404
    (listed,) = here.client(token).get("/v1/auth/keys").get_json()["data"]
    assert listed == {name: made[name] for name in made if name != "key"}
    assert here.client(token).delete(f"/v1/auth/keys/{made['id']}").status_code == 204
    assert there.status(key) == 401


def test_a_key_cannot_make_or_end_anything(here: Replica, ada: User) -> None:
    made = here.keys.create(ada.id, "laptop")
    client = here.client(made["key"])
    assert client.post("/v1/auth/keys", json={"name": "more"}).status_code == 403
    assert client.delete(f"/v1/auth/keys/{made['id']}").status_code == 403
    assert client.post("/v1/auth/logout").status_code == 403
    assert client.get("/v1/auth/keys").status_code == 200


def test_a_key_asked_for_twice_is_made_once(here: Replica, there: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    again = {"json": {"name": "laptop"}, "headers": {"Idempotency-Key": "my-laptop"}}
    first, second = (post(replica, "/v1/auth/keys", token, **again) for replica in (here, there))
    assert (first.status_code, second.status_code) == (201, 201)
    assert second.get_json() == first.get_json()  # the key too: the first answer may never have come
    assert "Idempotency-Replayed" not in first.headers and second.headers["Idempotency-Replayed"] == "true"
    assert second.headers["Cache-Control"] == "no-store"
    assert len(here.client(token).get("/v1/auth/keys").get_json()["data"]) == 1
    assert there.status(second.get_json()["key"]) == 200
    other = post(here, "/v1/auth/keys", token, **{**again, "json": {"name": "server"}})
    assert (other.status_code, other.get_json()["code"]) == (422, "idempotency_mismatch")


def test_many_askings_for_one_key_at_once(here: Replica, there: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    again = {"json": {"name": "laptop"}, "headers": {"Idempotency-Key": "all-at-once"}}
    answers = at_once(8, lambda number: post(here if number % 2 else there, "/v1/auth/keys", token, **again))
    assert len({answer.get_json()["key"] for answer in answers}) == 1
    assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == 7


def test_a_key_is_kept_nowhere_in_clear(here: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    again = {"json": {"name": "laptop"}, "headers": {"Idempotency-Key": "for-my-eyes"}}
    key = post(here, "/v1/auth/keys", token, **again).get_json()["key"]
    secret = key[len("slp_") + 8 :]  # its beginning is what the list shows
    with here.db.read() as tx:
        kept = repr([tx.rows(table.select()) for table in metadata.sorted_tables])
    assert "for-my-eyes" in kept and secret not in kept


def test_a_key_sealed_with_another_secret_is_not_shown_again(
    replicas: Callable[..., Replica], ada: User
) -> None:
    here, changed = replicas(), replicas(secret="another-secret-of-the-tests-that-is-long-enough")
    again = {"json": {"name": "laptop"}, "headers": {"Idempotency-Key": "before-the-change"}}
    assert post(here, "/v1/auth/keys", here.login()["access_token"], **again).status_code == 201
    answer = post(changed, "/v1/auth/keys", changed.login()["access_token"], **again)
    assert (answer.status_code, answer.get_json()["code"]) == (409, "conflict")


@pytest.mark.parametrize(
    "body",
    [
        {"name": ""},
        {"name": "a\x00b"},
        {"name": "x", "scopes": ["agents"]},
        {"name": "x", "scopes": ["agents:[a-z]"]},
        {"name": "x", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "expires_at": "9999-12-31T23:59:59-12:00"},
        {"name": "x", "expires_at": "2030-01-01T00:00:00"},
    ],
)
def test_a_key_that_does_not_fit_is_422(here: Replica, ada: User, body: dict[str, Any]) -> None:
    answer = post(here, "/v1/auth/keys", here.login()["access_token"], json=body)
    assert answer.status_code == 422, answer.text


def test_a_key_is_rotated_once_under_its_idempotency_key(here: Replica, there: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    made = here.keys.create(ada.id, "laptop", ("agents:plain",))
    path = f"/v1/auth/keys/{made['id']}/rotate"
    again = {"json": {"overlap_seconds": 60}, "headers": {"Idempotency-Key": "other-secret"}}
    first, second = (post(replica, path, token, **again) for replica in (here, there))
    shown = first.get_json()
    assert first.status_code == 200 and second.get_json() == shown and shown["key"] != made["key"]
    assert "Idempotency-Replayed" not in first.headers and second.headers["Idempotency-Replayed"] == "true"
    assert (shown["id"], shown["scopes"]) == (made["id"], made["scopes"])
    assert there.status(shown["key"]) == there.status(made["key"]) == 200
    (listed,) = here.client(token).get("/v1/auth/keys").get_json()["data"]
    assert listed == {name: shown[name] for name in shown if name != "key"}
    for overlap in (-1, 2_592_001, "60", 1.5):
        assert post(here, path, token, json={"overlap_seconds": overlap}).status_code == 422
    other = post(here, "/v1/auth/keys/key_none/rotate", token, json={})
    assert other.status_code == 404


def test_key_has_a_limit_of_its_own_within_its_users(here: Replica, there: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    limited = post(here, "/v1/auth/keys", token, json={"name": "bot", "limit_runs": "2/hour"}).get_json()
    free = here.keys.create(ada.id, "laptop")["key"]

    def runs(key: str) -> list[int]:
        return [post(replica, "/v1/agents/plain/invoke", key).status_code for replica in (here, there, here)]

    assert limited["limit_runs"] == "2/hour" and runs(free) == [200] * 3
    assert runs(limited["key"]) == [200, 200, 429]
    path = f"/v1/auth/keys/{limited['id']}"
    changed = here.client(token).patch(path, json={"limit_runs": "4/hour"})
    assert changed.get_json()["limit_runs"] == "4/hour"
    for _ in range(2):
        assert there.client(limited["key"]).get("/v1/auth/me").get_json()["limits"]["key_runs"] == "4/hour"
    assert here.client(token).patch(path, json={"limit_runs": ""}).get_json()["limit_runs"] is None
    assert runs(limited["key"]) == [200] * 3
    for body in ({}, {"limit_runs": "often"}, {"cap_usd": "-1"}, {"cap_usd": "1", "period": "year"}):
        assert here.client(token).patch(path, json=body).status_code == 422
    assert here.client(token).patch("/v1/auth/keys/key_none", json={"cap_usd": "1"}).status_code == 404


def test_owner_sets_and_lowers_the_cap_of_a_key_and_raises_none(here: Replica, ada: User) -> None:
    token, budgets = here.login()["access_token"], here.budgets
    made = post(
        here, "/v1/auth/keys", token, json={"name": "bot", "cap_usd": "2", "period": "day"}
    ).get_json()
    path, scope = f"/v1/auth/keys/{made['id']}", f"key:{made['id']}"

    def caps() -> list[tuple[str, int]]:
        return [(state.cap.period, state.cap.amount // NANO) for state in budgets.of([scope])]

    assert caps() == [("day", 2)]
    for amount, status, left in (("1", 200, 1), ("1", 200, 1), ("1.5", 403, 1), ("0.0", 200, 0)):
        body = {"cap_usd": amount, "period": "day", "limit_runs": "9/hour"}
        assert here.client(token).patch(path, json=body).status_code == status, amount
        assert caps() == [("day", left)]
    budgets.put(scope, "month", 5 * NANO)  # an admin's
    assert here.client(token).patch(path, json={"cap_usd": "6"}).status_code == 403
    budgets.put(scope, "month", None)
    assert here.client(token).patch(path, json={"cap_usd": "6"}).status_code == 200
    assert caps() == [("day", 0), ("month", 6)]


def test_keys_come_in_pages(here: Replica, ada: User) -> None:
    made = sorted(here.keys.create(ada.id, f"key {number}")["id"] for number in range(3))
    client = here.client(here.login()["access_token"])
    first = client.get("/v1/auth/keys?limit=2").get_json()
    rest = client.get(f"/v1/auth/keys?limit=2&cursor={first['next_cursor']}").get_json()
    assert [key["id"] for key in first["data"] + rest["data"]] == made
    assert rest["next_cursor"] is None


def test_change_of_a_key_is_made_whole_or_not_at_all(here: Replica, ada: User) -> None:
    client, key_id = here.client(here.login()["access_token"]), here.keys.create(ada.id, "bot")["id"]

    def change(**body: str) -> int:
        status: int = client.patch(f"/v1/auth/keys/{key_id}", json=body).status_code
        return status

    def standing() -> tuple[Any, list[int]]:
        caps = [state.cap.amount // NANO for state in here.budgets.of([f"key:{key_id}"])]
        return here.keys.get(key_id, ada.id)["limit_runs"], caps

    assert change(cap_usd="1", limit_runs="bogus") == 422 and standing() == (None, [])
    assert change(cap_usd="1", limit_runs="5/hour") == 200 and standing() == ("5/hour", [1])
    assert change(cap_usd="2", limit_runs="9/hour") == 403 and standing() == ("5/hour", [1])


def test_rate_that_is_none_is_told_with_the_other_faults(here: Replica, ada: User) -> None:
    body = {"name": "x", "limit_runs": "often", "colour": "red"}
    answer = post(here, "/v1/auth/keys", here.login()["access_token"], json=body)
    assert answer.status_code == 422
    assert {one["pointer"] for one in answer.get_json()["errors"]} == {"/limit_runs", "/colour"}
