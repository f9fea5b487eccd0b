"""Access and refresh tokens over HTTP: without one, expired, of another kind."""

from __future__ import annotations

import time
from typing import Any

import pytest

from service.auth.users import User
from tests.auth.forging import claims_of, forged
from tests.auth.house import Replica, post


def test_a_token_is_not_good_for_longer_than_one_made_now(here: Replica, ada: User) -> None:
    """Refuse a longer life: the token would outlive the revocation list, 15 minutes for an access token."""
    now = int(time.time())
    family = here.tokens.begin(ada)
    claims, key = claims_of(family.access_token), here.signing_keys.current()
    for life, status in ((900, 200), (901, 401)):
        token = forged(key, {**claims, "iat": now, "exp": now + life})
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
