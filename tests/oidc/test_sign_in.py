"""Sign-in on the page with an issuer: there and back, and every way in which coming back must fail."""

from __future__ import annotations

import base64
import json
import time
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import jwt
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.auth.oidc import issuer as issuers
from service.web import page_cookie
from tests.conftest import RedisServer
from tests.oidc.conftest import Make, me, services, unasked
from tests.oidc.issuer import AUDIENCE, CLIENT, StubIssuer, private_key, public_jwk

OWN = {page_cookie.HEADER: "1"}
CALLBACK = "/page/oidc/callback"
NOW = int(time.time())


@pytest.fixture
def app(shared: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    return unasked(shared, monkeypatch)


def begun(browser: FlaskClient) -> dict[str, str]:
    """Begin a sign-in; return what the issuer is asked."""
    answer = browser.get("/page/oidc/begin", buffered=True)
    assert answer.status_code == 302, answer.text
    asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.location).query).items()}
    return {**asked, "url": answer.location}


def back(browser: FlaskClient, **query: str) -> TestResponse:
    return browser.get(CALLBACK, query_string=query, buffered=True)


def signed_in(browser: FlaskClient) -> str | None:
    """Name of who is signed in on the page."""
    answer = browser.post("/page/renew", headers=OWN, buffered=True)
    if answer.status_code != 200:
        return None
    return str(me(browser.application, answer.json["access_token"]).json["username"])


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


def come_back(browser: FlaskClient, issuer: StubIssuer) -> str:
    asked = begun(browser)
    return str(back(browser, code=issuer.agree(asked["url"]), state=asked["state"]).location)


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


EVIL = "https://evil.example/"
QUERIES = ("redirect_uri", "next", "url", "return_to", "target", "post_logout_redirect_uri", "RelayState")
PLACES = (
    EVIL,
    "//evil.example",
    "/\\evil.example",
    "javascript:alert(1)",
    "\t//evil.example",
    "https:evil.example",
)
SPELLINGS = [
    *(f"{CALLBACK}?{name}={quote(EVIL)}&RIGHT" for name in QUERIES),
    *(f"{CALLBACK}?RIGHT&{name}={quote(EVIL)}" for name in QUERIES),
    *(f"{CALLBACK}?next={quote(place)}&RIGHT" for place in PLACES),
    *(f"{CALLBACK}?error={quote(place)}&RIGHT" for place in PLACES),
    *(f"{CALLBACK}?state={quote(place)}&code={quote(place)}" for place in PLACES),
    f"{CALLBACK}?RIGHT#{EVIL}",
    f"{CALLBACK}?RIGHT&RIGHT",
    f"{CALLBACK}?iss={quote(EVIL)}&RIGHT",
    f"{CALLBACK}?RIGHT&{quote(EVIL)}",
    f"{CALLBACK}?code=%0d%0aLocation:%20{quote(EVIL)}&RIGHT",
    f"{CALLBACK}/?RIGHT",
    f"{CALLBACK}//evil.example?RIGHT",
    f"{CALLBACK}/..?RIGHT",
    f"{CALLBACK}/../../..//evil.example?RIGHT",
    f"{CALLBACK}/%2e%2e/%2e%2e//evil.example?RIGHT",
    f"{CALLBACK}%2f?RIGHT",
    f"{CALLBACK}%2f%2fevil.example?RIGHT",
    f"{CALLBACK}%00?RIGHT",
    f"{CALLBACK};evil.example?RIGHT",
    f"{CALLBACK}@evil.example?RIGHT",
    f"{CALLBACK}.evil.example?RIGHT",
    f"/{CALLBACK}?RIGHT",
    f"//evil.example{CALLBACK}?RIGHT",
    f"{EVIL}page/oidc/callback?RIGHT",
    "/page//oidc/callback?RIGHT",
    "/page/./oidc/callback?RIGHT",
    "/page/oidc/../oidc/callback?RIGHT",
    "/page/oidc/%63allback?RIGHT",
    "/PAGE/OIDC/CALLBACK?RIGHT",
    "/page\\oidc\\callback?RIGHT",
    "/page/oidc%2fcallback?RIGHT",
    f"/page/oidc/begin?redirect_uri={quote(EVIL)}",
    f"/page/oidc/begin?next={quote(EVIL)}",
    f"/page/oidc/begin?client_id=evil&issuer={quote(EVIL)}",
    f"/page/oidc/begin/{EVIL}",
]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_no_spelling_leads_anywhere_else(app: Flask, issuer: StubIssuer, spelling: str, host: str) -> None:
    browser = app.test_client()
    asked = begun(browser)
    right = f"code={issuer.agree(asked['url'])}&state={asked['state']}"
    headers = {"Host": host, "X-Forwarded-Host": "evil.example", "Referer": EVIL}
    answer = browser.get(spelling.replace("RIGHT", right), headers=headers, buffered=True)
    if answer.status_code // 100 != 3:
        assert answer.status_code in (400, 404) and "Location" not in answer.headers, answer.text
    elif answer.location.startswith(f"{issuer.url}/authorize?"):
        sent = parse_qs(urlsplit(answer.location).query)
        assert sent["redirect_uri"] == [f"http://localhost{CALLBACK}"] and sent["client_id"] == [CLIENT]
        assert "evil" not in answer.location
    else:
        assert answer.location in ("/", "/#sign-in-failed=expired", "/#sign-in-failed=refused")


def test_there_are_many_spellings() -> None:
    assert len(set(SPELLINGS)) >= 60


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
