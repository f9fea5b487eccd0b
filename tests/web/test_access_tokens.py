"""Access and refresh tokens over HTTP: forged, expired, of another kind, signed with a key pair."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.auth.users import User
from tests.auth.house import PASSWORD, SECRET, Replica, post
from tests.auth.test_tokens import pem


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
    """Refuse a longer life: the token would outlive the revocation list, 15 minutes for an access token."""
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
