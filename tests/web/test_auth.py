"""Signing in over HTTP: two replicas that share a database and a Redis."""

from __future__ import annotations

import pytest

from service.auth.users import User
from tests.auth.house import PASSWORD, Replica, post
from tests.conftest import RedisServer


def test_signing_in(here: Replica, ada: User) -> None:
    pair = here.login()
    assert set(pair) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert pair["token_type"] == "Bearer" and pair["expires_in"] == 900
    me = here.client(pair["access_token"]).get("/v1/auth/me").get_json()
    [cap] = me.pop("budget")["data"]
    assert (cap["scope"], cap["period"], cap["left_usd"]) == (f"user:{ada.id}", "day", "5.000000")
    assert me == {
        "id": ada.id,
        "workspace_id": ada.workspace_id,
        "username": "ada",
        "role": "user",
        "scopes": [],
        "limits": {
            "runs": "600/minute",
            "writes": "6000/minute",
            "reads": "6000/minute",
        },
    }


def test_unknown_user_and_wrong_password_have_the_same_answer(here: Replica, ada: User) -> None:
    answers = [
        post(here, "/v1/auth/login", json={"username": name, "password": word})
        for name, word in (("ada", "wrong"), ("nobody", PASSWORD))
    ]
    assert answers[0].status_code == answers[1].status_code == 401
    first, second = ({**answer.get_json(), "request_id": ""} for answer in answers)
    assert first == second and first["code"] == "invalid_credentials"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 422),
        (b"null", 422),
        (b"{}", 422),
        (b'{"username": 1, "password": "x"}', 422),
        (b'{"username": "ada", "password": "x", "more": 1}', 422),
        (b'{"username": "", "password": "x"}', 422),
        (b'{"username": "a\\u0000b", "password": "x"}', 422),
        (b'{"username": "\\ud800", "password": "x"}', 400),
        (b"\xff", 400),
    ],
)
def test_invalid_log_in_bodies_are_problems(here: Replica, body: bytes, status: int) -> None:
    answer = post(here, "/v1/auth/login", data=body, content_type="application/json")
    assert answer.status_code == status, answer.text
    assert answer.mimetype == "application/problem+json"


def test_a_token_of_one_works_on_the_other(here: Replica, there: Replica, ada: User) -> None:
    assert there.status(here.login()["access_token"]) == 200


def test_logout_holds_on_both_at_once(here: Replica, there: Replica, ada: User) -> None:
    pair = here.login()
    assert there.status(pair["access_token"]) == 200
    assert post(here, "/v1/auth/logout", pair["access_token"]).status_code == 204
    assert here.status(pair["access_token"]) == there.status(pair["access_token"]) == 401
    assert post(there, "/v1/auth/refresh", pair["refresh_token"]).status_code == 401


def test_everything_about_signing_in_works_without_redis(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer
) -> None:
    before = here.login()
    post(here, "/v1/auth/logout", before["access_token"])
    own_redis.stop()
    assert there.status(before["access_token"]) == 401
    pair = here.login()
    renewed = post(there, "/v1/auth/refresh", pair["refresh_token"]).get_json()
    assert here.status(renewed["access_token"]) == 200
    assert post(here, "/v1/auth/logout", renewed["access_token"]).status_code == 204
    assert there.status(renewed["access_token"]) == 401
    own_redis.start()
    assert there.status(renewed["access_token"]) == 401
    assert there.status(before["access_token"]) == 401


def test_roles_are_a_ladder(here: Replica) -> None:
    for role, status in (("user", 403), ("operator", 200), ("admin", 200)):
        here.users.create(role, PASSWORD, role)  # type: ignore[arg-type]
        token = here.login(role)["access_token"]
        assert here.client(token).get("/v1/admin/audit").status_code == status
