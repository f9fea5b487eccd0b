"""Signing in over HTTP: two replicas that share a database and a Redis."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.auth.users import User
from service.store.schema import metadata
from tests.auth.house import PASSWORD, SECRET, Replica
from tests.auth.test_tokens import pem
from tests.conftest import RedisServer
from tests.usage.house import at_once


def post(replica: Replica, path: str, token: str = "", **options: Any) -> Any:
    return replica.client(token or None).post(path, **options)


def test_signing_in(here: Replica, ada: User) -> None:
    pair = here.login()
    assert set(pair) == {"access_token", "refresh_token", "token_type", "expires_in"}
    assert pair["token_type"] == "Bearer" and pair["expires_in"] == 900
    me = here.client(pair["access_token"]).get("/v1/auth/me").get_json()
    [cap] = me.pop("budget")["data"]
    assert (cap["scope"], cap["period"], cap["left_usd"]) == (f"user:{ada.id}", "day", "5.000000")
    assert me == {
        "id": ada.id,
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
    assert answers[0].get_json() == answers[1].get_json()
    assert answers[0].get_json()["code"] == "invalid_credentials"


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


def claims(**changed: Any) -> dict[str, Any]:
    now = int(time.time())
    right = {
        "iss": "slipway",
        "aud": "slipway",
        "sub": "usr_x",
        "fam": "fam_x",
        "jti": "j",
        "iat": now,
        "exp": now + 60,
    }
    all_of_it = {**right, "type": "access", "role": "admin", "name": "x", **changed}
    return {key: value for key, value in all_of_it.items() if value is not None}


def signed(
    secret: str = SECRET, algorithm: str = "HS256", headers: dict[str, Any] | None = None, **changed: Any
) -> str:
    return jwt.encode(claims(**changed), secret, algorithm, headers=headers)


def unsigned() -> str:
    return jwt.encode(claims(), "", "none")


def deep() -> str:
    parts = [
        base64.urlsafe_b64encode(part).rstrip(b"=").decode()
        for part in (b'{"alg":"HS256"}', b"[" * 5_000, b"x")
    ]
    return ".".join(parts)


# Of a token that lives for 15 minutes at most.
DATES: list[dict[str, Any]] = [
    {"exp": None},
    {"exp": "soon"},
    {"exp": str(int(time.time()) + 60)},
    {"exp": time.time() + 60},
    {"exp": float("inf")},
    {"exp": float("nan")},
    {"exp": True},
    {"exp": [int(time.time()) + 60]},
    {"exp": 10**12},
    {"exp": 10**400},
    {"exp": int(time.time()) + 40 * 86_400},
    {"iat": None},
    {"iat": "now"},
    {"iat": time.time()},
    {"iat": True},
    {"iat": float("-inf")},
    {"iat": int(time.time()) - 40 * 86_400},
    {"iat": int(time.time()) + 3600},
    {"nbf": int(time.time()) + 3600},
    {"nbf": "soon"},
    {"nbf": float("inf")},
]


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "a.b.c",
        "é",
        "a b",
        "....",
        deep(),
        unsigned(),
        signed(secret="another-secret-of-the-tests-with-64-characters-and-then-a-few-more"),
        signed(algorithm="HS512"),
        signed(headers={"kid": "other"}),
        signed(exp=1),
        signed(exp=None, jti=None),
        signed(exp="soon"),
        signed(iat=int(time.time()) + 3600),
        signed(iss="other"),
        signed(aud="other"),
        signed(aud=None),
        signed(sub=1),
        signed(sub=None),
        signed(type="refresh"),
        signed(fam=None),
        signed(fam=["x"]),
        signed(role=None),
        signed(role="root"),
        signed(role=["admin"]),
        signed(name=None),
        signed(name=1),
        signed(lim=60),
        signed(jti=None),
        signed(jti=1),
        signed(type=None),
        signed(type="other"),
        signed(headers={"typ": "at+jwt"}),
        *(signed(**wrong) for wrong in DATES),
    ],
)
def test_a_wrong_token_is_401(here: Replica, token: str) -> None:
    for path in ("/v1/auth/me", "/operators"):
        answer = here.client().get(path, headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, answer.text
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.mimetype == "application/problem+json"
    assert (
        here.client().post("/v1/auth/refresh", headers={"Authorization": f"Bearer {token}"}).status_code
        == 401
    )


@pytest.mark.parametrize("wrong", [{"jti": None}, {"type": None}, {"fam": None}, {"sub": None}, *DATES])
def test_a_wrong_refresh_token_is_401(here: Replica, wrong: dict[str, Any]) -> None:
    token = signed(**{"type": "refresh", **wrong})
    answer = post(here, "/v1/auth/refresh", token)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "invalid_token"), answer.text


def test_a_token_is_not_good_for_longer_than_one_made_now(here: Replica, ada: User) -> None:
    """It would outlive the memory of log-ins that have ended: 15 minutes for an access token."""
    now = int(time.time())
    family = here.tokens.begin(ada)
    claims = jwt.decode(family.access_token, options={"verify_signature": False})
    for life, status in ((900, 200), (901, 401)):
        token = signed(**{**claims, "iat": now, "exp": now + life})
        assert here.status(token) == status


@pytest.mark.parametrize(
    "headers", [{}, {"Authorization": ""}, {"Authorization": "Bearer"}, {"Authorization": "Basic eA=="}]
)
def test_no_token_is_401(here: Replica, headers: dict[str, str]) -> None:
    answer = here.client().get("/v1/auth/me", headers=headers)
    assert (answer.status_code, answer.get_json()["code"]) == (401, "unauthenticated")


def test_the_scheme_may_be_written_in_any_case(here: Replica, ada: User) -> None:
    token = here.login()["access_token"]
    for scheme in ("bearer", "BEARER", "Bearer"):
        assert (
            here.client().get("/v1/auth/me", headers={"Authorization": f"{scheme} {token}"}).status_code
            == 200
        )


def test_a_refresh_token_opens_nothing_else(here: Replica, ada: User) -> None:
    pair = here.login()
    assert here.status(pair["refresh_token"]) == 401
    assert post(here, "/v1/auth/refresh", pair["access_token"]).status_code == 401


def test_a_remembered_token_expires(here: Replica, ada: User, monkeypatch: pytest.MonkeyPatch) -> None:
    token = here.login()["access_token"]
    assert here.status(token) == 200
    real = time.time
    monkeypatch.setattr("service.web.authentication.time.time", lambda: real() + 906)
    monkeypatch.setattr("jwt.api_jwt.datetime", _Later)
    assert here.status(token) == 401


class _Later:
    @staticmethod
    def now(tz: Any = None) -> Any:
        from datetime import datetime, timedelta

        return datetime.now(tz) + timedelta(seconds=906)


def test_roles_are_a_ladder(here: Replica) -> None:
    for role, status in (("user", 403), ("operator", 200), ("admin", 200)):
        here.users.create(role, PASSWORD, role)  # type: ignore[arg-type]
        token = here.login(role)["access_token"]
        assert here.client(token).get("/operators").status_code == status


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
    assert post(there, "/v1/agents/rated/invoke", key).status_code == 403
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


def test_keys_come_in_pages(here: Replica, ada: User) -> None:
    made = sorted(here.keys.create(ada.id, f"key {number}")["id"] for number in range(3))
    client = here.client(here.login()["access_token"])
    first = client.get("/v1/auth/keys?limit=2").get_json()
    rest = client.get(f"/v1/auth/keys?limit=2&cursor={first['next_cursor']}").get_json()
    assert [key["id"] for key in first["data"] + rest["data"]] == made
    assert rest["next_cursor"] is None


def test_tokens_signed_with_a_key_of_ones_own(replicas: Callable[..., Replica]) -> None:
    private = pem(Ed25519PrivateKey.generate())
    here, there = replicas(private_key=private), replicas(private_key=private)
    here.users.create("ada", PASSWORD)
    token = here.login()["access_token"]
    assert there.status(token) == 200
    (public,) = there.client().get("/.well-known/jwks.json").get_json()["keys"]
    key = jwt.PyJWK.from_dict(public)
    assert jwt.get_unverified_header(token)["kid"] == public["kid"]
    assert jwt.decode(token, key, algorithms=["EdDSA"], audience="slipway", issuer="slipway")["name"] == "ada"
    # the public key must not pass for a shared secret
    assert there.status(jwt.encode(claims(), public["x"], "HS256", headers={"kid": public["kid"]})) == 401


def test_there_are_no_public_keys_for_a_shared_secret(here: Replica) -> None:
    assert here.client().get("/.well-known/jwks.json").get_json() == {"keys": []}
