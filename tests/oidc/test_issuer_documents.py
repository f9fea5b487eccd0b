"""Documents of an issuer with fields of any type: the sign-in fails as while the issuer is away, or goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
from flask import Flask

from tests.made import app_in, close
from tests.oidc.conftest import Make, me, services, settings, unasked
from tests.oidc.issuer import CLIENT, StubIssuer, private_key, public_jwk
from tests.oidc.test_sign_in import back, begun, come_back

VALUES: dict[str, Any] = {
    "null": None,
    "a number": 7,
    "a huge number": 2**53,
    "a list": [],
    "a list of others": [None, 7, ["S256"]],
    "an object": {"S256": True},
    "true": True,
    "empty": "",
    "a huge text": "x" * 100_000,
    "a huge address": "http://" + "x" * 100_000,
    "half an address": "http://[",
    "a port that is none": "http://127.0.0.1:x/",
    "an address without a host": "https://",
}
NO_JSON = {"a number without end": 10**400, "half a letter": "\ud800"}  # to this service
METADATA = [
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "code_challenge_methods_supported",
    "token_endpoint_auth_methods_supported",
    "authorization_response_iss_parameter_supported",
]
KEY = ["kty", "kid", "use", "alg", "n", "e", "d", "crv", "x", "y", "key_ops", "x5c"]
TOKENS = ["id_token", "access_token", "token_type", "error", "expires_in"]
CLAIMS = [
    "sub",
    "aud",
    "exp",
    "iat",
    "nbf",
    "azp",
    "nonce",
    "at_hash",
    "preferred_username",
    "email",
    "roles",
    "typ",
    "token_use",
]
ENDS = {"/", *(f"/#sign-in-failed={reason}" for reason in ("expired", "refused", "unavailable"))}
EACH = {**VALUES, **NO_JSON}
each_value = pytest.mark.parametrize("value", EACH.values(), ids=EACH)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, stub: StubIssuer) -> Iterator[Flask]:
    """One application for this module, without Redis: its many sign-ins are not counted against other tests."""
    made = app_in(tmp_path_factory.mktemp("own"), **settings(stub, LIMIT_LOGIN="100000/minute"))
    yield made
    close(made)


@pytest.fixture
def app(own: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    return unasked(own, monkeypatch)


def goes_there_and_back(app: Flask, issuer: StubIssuer) -> None:
    browser = app.test_client()
    first = browser.get("/page/oidc/begin", buffered=True)
    assert first.status_code == 302, first.text
    if first.location in ENDS or not first.location.startswith(f"{issuer.url}/authorize?"):
        return
    assert come_back(browser, issuer) in ENDS


@each_value
@pytest.mark.parametrize("name", METADATA)
def test_discovery_document(app: Flask, issuer: StubIssuer, name: str, value: Any) -> None:
    issuer.metadata = {name: value}
    goes_there_and_back(app, issuer)


@pytest.mark.parametrize("named", [None, [None, 7]])
def test_lists_that_are_none_are_as_left_out(app: Flask, issuer: StubIssuer, named: Any) -> None:
    names = ("code_challenge_methods_supported", "token_endpoint_auth_methods_supported")
    issuer.metadata = dict.fromkeys(names, named)
    assert come_back(app.test_client(), issuer) == "/"
    assert "Authorization" in issuer.token_calls[0][0]


@pytest.mark.parametrize("name", KEY)
@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_key_that_cannot_be_used_is_skipped(
    app: Flask, issuer: StubIssuer, algorithm: str, name: str
) -> None:
    odd = [{**public_jwk("odd", algorithm), name: value} for value in VALUES.values()]
    issuer.keys = [*odd, public_jwk("one")]
    assert me(app, issuer.token()).status_code == 200
    assert me(app, issuer.token("odd", algorithm)).status_code in (200, 401, 503)


@each_value
@pytest.mark.parametrize("name", TOKENS)
def test_answer_of_the_token_endpoint(app: Flask, issuer: StubIssuer, name: str, value: Any) -> None:
    browser = app.test_client()
    asked = begun(browser)
    claims = issuer.claims(aud=CLIENT, azp=None, nonce=asked["nonce"])
    token = jwt.encode(claims, private_key("one"), "RS256", headers={"kid": "one"})
    right = {"access_token": "opaque", "token_type": "Bearer", "id_token": token}
    for status in (200, 400):
        issuer.answers = {"/token": (status, json.dumps({**right, name: value}).encode())}
        told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
        assert back(browser, **told).location in ENDS


@pytest.mark.parametrize("name", CLAIMS)
def test_claim(app: Flask, issuer: StubIssuer, name: str) -> None:
    for value in VALUES.values():
        assert me(app, issuer.token(**{name: value})).status_code in (200, 401, 403), value
        issuer.id_changes = {name: value}
        assert come_back(app.test_client(), issuer) in ENDS, value


def test_times_without_an_end(make: Make, issuer: StubIssuer) -> None:
    app = make()
    for name in ("iat", "exp", "nbf"):
        for value in (float("inf"), float("-inf"), float("nan"), -1, 0.5, int(time.time()) + 0.5):
            assert me(app, issuer.token(**{name: value})).status_code in (200, 401), (name, value)
    assert services(app).auth.users.page(limit=9, after=None)
