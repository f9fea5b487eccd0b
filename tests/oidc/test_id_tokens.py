"""ID tokens that a sign-in takes, and those that it refuses."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from flask import Flask

from tests.oidc.browser import back, begun, come_back, signed_in
from tests.oidc.conftest import unasked
from tests.oidc.issuer import AUDIENCE, CLIENT, StubIssuer, private_key, public_jwk

NOW = int(time.time())


@pytest.fixture
def app(shared: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    return unasked(shared, monkeypatch)


ID_TOKENS: dict[str, dict[str, Any]] = {
    "another nonce": {"nonce": "x" * 43},
    "no nonce": {"nonce": None},
    "another audience": {"aud": "another"},
    "audience of the API": {"aud": AUDIENCE},
    "several audiences, no azp": {"aud": [CLIENT, "another"]},
    "several audiences, another azp": {"aud": [CLIENT, "another"], "azp": "another"},
    "another azp": {"azp": "another"},
    "another issuer": {"iss": "https://evil.example"},
    "issuer with a slash": {"iss": "/"},
    "expired": {"iat": NOW - 900, "exp": NOW - 600},
    "no end": {"exp": None},
    "not yet": {"nbf": NOW + 3600},
    "issued tomorrow": {"iat": NOW + 86_400, "exp": NOW + 86_500},
    "no time of issue": {"iat": None},
    "no subject": {"sub": None},
    "subject with NUL": {"sub": "a\0b"},
    "too long": {"filling": "x" * 8192},
    "another access token": {"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"},
}


@pytest.mark.parametrize("case", ID_TOKENS)
def test_id_token_that_is_not_of_this_sign_in(app: Flask, issuer: StubIssuer, case: str) -> None:
    browser = app.test_client()
    issuer.id_changes = ID_TOKENS[case]
    assert come_back(browser, issuer) in ("/#sign-in-failed=expired", "/#sign-in-failed=refused")
    assert signed_in(browser) is None


@pytest.mark.parametrize(
    "changes", [{"aud": [CLIENT]}, {"aud": [CLIENT, "x"], "azp": CLIENT}, {"azp": CLIENT}, {"at_hash": None}]
)
def test_lawful_id_tokens(app: Flask, issuer: StubIssuer, changes: dict[str, Any]) -> None:
    issuer.id_changes = changes
    assert come_back(app.test_client(), issuer) == "/"


@pytest.mark.parametrize(
    "case", ["access token", "alg none", "HS256 with the secret", "nothing", "another's key"]
)
def test_token_that_is_no_id_token(
    app: Flask, issuer: StubIssuer, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = app.test_client()
    asked = begun(browser)
    claims = issuer.claims(aud=CLIENT, azp=None, nonce=asked["nonce"])
    head = {"kid": "one", "typ": "JWT"}
    issuer.id_token = {
        "access token": jwt.encode(claims, private_key("one"), "RS256", headers={**head, "typ": "at+jwt"}),
        "alg none": jwt.encode(claims, "", "none", headers=head),
        "HS256 with the secret": jwt.encode(claims, "the-secret-of-the-page-" * 2, "HS256", headers=head),
        "nothing": "x",
        "another's key": jwt.encode(claims, private_key("stranger"), "RS256", headers=head),
    }[case]
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    assert back(browser, **told).location == "/#sign-in-failed=expired"
    assert signed_in(browser) is None


def test_rotated_key_signs_the_id_token(app: Flask, issuer: StubIssuer) -> None:
    browser = app.test_client()
    asked = begun(browser)
    issuer.keys = [public_jwk("two", "EdDSA")]
    claims = issuer.claims(aud=CLIENT, azp=None, nonce=asked["nonce"])
    issuer.id_token = jwt.encode(claims, private_key("two", "EdDSA"), "EdDSA", headers={"kid": "two"})
    assert back(browser, code=issuer.agree(asked["url"]), state=asked["state"]).location == "/"
