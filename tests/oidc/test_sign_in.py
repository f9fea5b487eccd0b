"""Sign-in on the page with an issuer: there and back, and every way in which coming back must fail."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from service.auth.oidc import issuer as issuers
from tests.conftest import RedisServer
from tests.oidc.browser import CALLBACK, OWN, back, begun, come_back, signed_in
from tests.oidc.conftest import Make, services, unasked
from tests.oidc.issuer import CLIENT, StubIssuer


@pytest.fixture
def app(shared: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    return unasked(shared, monkeypatch)


def test_sign_in_there_and_back(app: Flask, issuer: StubIssuer) -> None:
    browser = app.test_client()
    asked = begun(browser)
    assert asked["redirect_uri"] == "http://localhost/page/oidc/callback"
    answer = back(browser, code=issuer.agree(asked["url"]), state=asked["state"], iss=issuer.url)
    assert (answer.status_code, answer.location, answer.data) == (302, "/", b"")
    assert signed_in(browser) == "ada"
    headers, form = issuer.token_calls[0]
    assert (
        base64.b64decode(headers["Authorization"].removeprefix("Basic "))
        == b"slipway-page:the-secret-of-the-page"
    )
    assert "client_secret" not in form and len(form["code_verifier"]) >= 43
    assert browser.post("/page/sign-out", headers=OWN).status_code == 204 and signed_in(browser) is None


def test_cookies_of_a_sign_in(app: Flask, issuer: StubIssuer) -> None:
    browser = app.test_client()
    first = browser.get("/page/oidc/begin")
    [cookie] = first.headers.getlist("Set-Cookie")
    flags = {flag.strip() for flag in cookie.split(";")[1:]}
    assert {"HttpOnly", "SameSite=Lax", "Max-Age=600", "Path=/"} <= flags and "Domain" not in cookie
    state = parse_qs(urlsplit(first.location).query)["state"][0]
    answer = back(browser, code=issuer.agree(first.location), state=state)
    kept = dict(cookie.split("=", 1) for cookie in answer.headers.getlist("Set-Cookie"))
    assert "SameSite=Strict" in kept["slipway"] and "HttpOnly" in kept["slipway"]
    assert "Max-Age=0" in kept["slipway-oidc"]
    assert answer.headers["Cache-Control"] == first.headers["Cache-Control"] == "no-store"


def test_each_sign_in_has_its_own_secrets(app: Flask) -> None:
    first, second = begun(app.test_client()), begun(app.test_client())
    for name in ("state", "nonce", "code_challenge"):
        assert first[name] != second[name] and len(first[name]) >= 43


def test_public_client_sends_no_secret(make: Make, issuer: StubIssuer) -> None:
    browser = make(OIDC_CLIENT_SECRET="").test_client()
    asked = begun(browser)
    assert back(browser, code=issuer.agree(asked["url"]), state=asked["state"]).location == "/"
    headers, form = issuer.token_calls[0]
    assert "Authorization" not in headers and form["client_id"] == CLIENT and "client_secret" not in form


def test_secret_is_sent_as_the_issuer_takes_it(app: Flask, issuer: StubIssuer) -> None:
    issuer.metadata = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    browser = app.test_client()
    asked = begun(browser)
    assert back(browser, code=issuer.agree(asked["url"]), state=asked["state"]).location == "/"
    headers, form = issuer.token_calls[0]
    assert "Authorization" not in headers and form["client_secret"] == "the-secret-of-the-page"


ANSWERS: dict[str, dict[str, Any]] = {
    "no state": {"state": None},
    "empty state": {"state": ""},
    "another state": {"state": "x" * 43},
    "state cut": {"cut": True},
    "no code": {"code": None},
    "empty code": {"code": ""},
    "made-up code": {"code": "made-up"},
    "code that is too long": {"code": "x" * 5000},
    "code with a line break": {"code": "code-0\r\nX-Evil: 1"},
    "code in other letters": {"code": "é"},
    "another issuer": {"iss": "https://evil.example"},
    "no issuer named": {"iss": ""},
}


@pytest.mark.parametrize("case", ANSWERS)
def test_answer_that_is_not_of_this_sign_in(app: Flask, issuer: StubIssuer, case: str) -> None:
    browser = app.test_client()
    asked, changed = begun(browser), dict(ANSWERS[case])
    right = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    if changed.pop("cut", False):
        right["state"] = right["state"][:-1]
    told = {name: value for name, value in {**right, **changed}.items() if value is not None}
    assert back(browser, **told).location == "/#sign-in-failed=expired"
    assert signed_in(browser) is None
    assert len(issuer.token_calls) == (case == "made-up code")  # no other is put to the issuer


def test_issuer_that_promises_its_name_must_send_it(app: Flask, issuer: StubIssuer) -> None:
    issuer.metadata = {"authorization_response_iss_parameter_supported": True}
    browser = app.test_client()
    asked = begun(browser)
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    assert back(browser, **told).location == "/#sign-in-failed=expired"
    asked = begun(browser)
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"], "iss": issuer.url}
    assert back(browser, **told).location == "/"


def test_state_of_another_browser(app: Flask, issuer: StubIssuer) -> None:
    """An attacker's own code and state, in the browser of somebody else who has begun a sign-in too, or not."""
    attacker, victim, other = app.test_client(), app.test_client(), app.test_client()
    asked = begun(attacker)
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    begun(victim)
    for browser in (victim, other):
        assert back(browser, **told).location == "/#sign-in-failed=expired"
        assert signed_in(browser) is None


def test_code_of_another_sign_in(app: Flask, issuer: StubIssuer) -> None:
    """A code that was stolen from a victim does not fit the attacker's verifier: PKCE."""
    attacker, victim = app.test_client(), app.test_client()
    stolen = issuer.agree(begun(victim)["url"])
    own = begun(attacker)
    assert back(attacker, code=stolen, state=own["state"]).location == "/#sign-in-failed=expired"
    assert signed_in(attacker) is None


@pytest.mark.parametrize("redis", ["redis", "no redis"])
def test_answer_counts_once(make: Make, issuer: StubIssuer, redis_server: RedisServer, redis: str) -> None:
    """Also with the cookie put back, and with another code, which the issuer alone cannot know to be wrong."""
    app = make(**({"REDIS_URL": redis_server.url} if redis == "redis" else {}))
    browser = app.test_client()
    asked = begun(browser)
    cookie = browser.get_cookie("slipway-oidc")
    assert cookie is not None
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    assert back(browser, **told).location == "/"
    assert back(browser, **told).location == "/#sign-in-failed=expired"
    browser.set_cookie("slipway-oidc", cookie.value)
    assert back(browser, **told).location == "/#sign-in-failed=expired"
    if redis == "redis":
        browser.set_cookie("slipway-oidc", cookie.value)
        again = {**told, "code": issuer.agree(asked["url"])}
        assert back(browser, **again).location == "/#sign-in-failed=expired"
        assert len(issuer.token_calls) == 1


@pytest.mark.parametrize("cookie", ["", "x", "a.b.c", "W10.x.y", "é", "x" * 3000])
def test_cookie_that_was_not_made_here(app: Flask, issuer: StubIssuer, cookie: str) -> None:
    browser = app.test_client()
    asked = begun(browser)
    browser.set_cookie("slipway-oidc", cookie)
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    assert back(browser, **told).location == "/#sign-in-failed=expired"


def test_cookie_that_is_over(app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = app.test_client()
    asked = begun(browser)
    monkeypatch.setattr("service.auth.oidc.sign_in.LIFE_SECONDS", -1)
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    assert back(browser, **told).location == "/#sign-in-failed=expired"


def test_cookie_of_another_secret_key(make: Make, issuer: StubIssuer) -> None:
    here, there = make(), make(SECRET_KEY="another-secret-of-the-tests-which-is-long-enough")
    browser, other = here.test_client(), there.test_client()
    asked = begun(browser)
    cookie = browser.get_cookie("slipway-oidc")
    assert cookie is not None
    other.set_cookie("slipway-oidc", cookie.value)
    told = {"code": issuer.agree(asked["url"]), "state": asked["state"]}
    assert back(other, **told).location == "/#sign-in-failed=expired"
    assert back(browser, **told).location == "/"


def test_pkce_is_not_given_up(app: Flask, issuer: StubIssuer) -> None:
    issuer.metadata = {"code_challenge_methods_supported": ["plain"]}
    answer = app.test_client().get("/page/oidc/begin")
    assert answer.location == "/#sign-in-failed=unavailable" and not issuer.grants


@pytest.mark.parametrize("address", [None, "", "javascript:alert(1)", 7])
def test_address_of_the_sign_in_is_one(app: Flask, issuer: StubIssuer, address: Any) -> None:
    issuer.metadata = {"authorization_endpoint": address}
    assert app.test_client().get("/page/oidc/begin").location == "/#sign-in-failed=unavailable"


def test_user_who_declines(app: Flask, issuer: StubIssuer) -> None:
    browser = app.test_client()
    told = {"error": "access_denied", "error_description": "<b>x</b>", "state": begun(browser)["state"]}
    answer = back(browser, **told)
    assert answer.location == "/#sign-in-failed=refused" and answer.data == b""


def test_issuer_that_is_away_is_told_on_the_page(
    app: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = app.test_client()
    issuer.answers = {"/.well-known/openid-configuration": (503, b"")}
    assert browser.get("/page/oidc/begin").location == "/#sign-in-failed=unavailable"
    monkeypatch.setattr(services(app).auth.identities.issuer, "_next_fetch", 0.0)
    issuer.answers = {"/token": (502, b"SECRET")}
    assert come_back(browser, issuer) == "/#sign-in-failed=unavailable"
    for answer in ((200, b"no JSON"), (401, b'{"error": "invalid_client"}')):
        issuer.answers = {"/token": answer}
        assert come_back(browser, issuer) == "/#sign-in-failed=unavailable"
    issuer.answers = {}
    assert come_back(browser, issuer) == "/"


def test_user_who_may_not(make: Make, issuer: StubIssuer) -> None:
    app = make(OIDC_CREATE_USERS="false")
    browser = app.test_client()
    assert come_back(browser, issuer) == "/#sign-in-failed=refused" and signed_in(browser) is None
    app.test_cli_runner().invoke(args=["users", "link", "demo", "--subject", "ada"])
    assert come_back(browser, issuer) == "/" and signed_in(browser) == "demo"
    users = services(app).auth.users
    users.change(users.by_name("demo").id, disabled=True)
    assert come_back(browser, issuer) == "/#sign-in-failed=refused" and signed_in(browser) is None


def test_limit_per_address(make: Make, issuer: StubIssuer) -> None:
    browser = make(LIMIT_LOGIN="3/hour").test_client()
    assert come_back(browser, issuer) == "/"
    assert browser.get("/page/oidc/begin").status_code == 302
    for path in ("/page/oidc/begin", CALLBACK):
        answer = browser.get(path)
        assert answer.status_code == 429 and answer.headers["Retry-After"]


def test_page_offers_it_only_where_it_is_configured(make: Make) -> None:
    link = 'href="/page/oidc/begin"'
    assert link in make().test_client().get("/").text
    off = make(OIDC_CLIENT_ID="", OIDC_CLIENT_SECRET="")
    assert link not in off.test_client().get("/").text
    for path in ("/page/oidc/begin", CALLBACK):
        assert off.test_client().get(path).json["code"] == "not_found"


def test_secrets_of_a_sign_in_are_not_in_the_log(
    app: Flask, issuer: StubIssuer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(issuers, "PAUSE_SECONDS", 0.0)
    browser = app.test_client()
    asked = begun(browser)
    code = issuer.agree(asked["url"])
    back(browser, code=code, state=asked["state"])
    verifier = issuer.token_calls[0][1]["code_verifier"]
    logged = json.dumps([record.__dict__ for record in caplog.records], default=str)
    for secret in (asked["state"], asked["nonce"], verifier, "the-secret-of-the-page", f"code={code}"):
        assert secret not in logged
