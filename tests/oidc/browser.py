"""Browser that signs in on the page with the issuer."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from service.web import page_cookie
from tests.oidc.conftest import me
from tests.oidc.issuer import StubIssuer

OWN = {page_cookie.HEADER: "1"}
CALLBACK = "/page/oidc/callback"


def begun(browser: FlaskClient) -> dict[str, str]:
    """Begin a sign-in; return what the issuer is asked."""
    answer = browser.get("/page/oidc/begin", buffered=True)
    assert answer.status_code == 302, answer.text
    asked = {name: values[0] for name, values in parse_qs(urlsplit(answer.location).query).items()}
    return {**asked, "url": answer.location}


def back(browser: FlaskClient, **query: str) -> TestResponse:
    return browser.get(CALLBACK, query_string=query, buffered=True)


def signed_in(browser: FlaskClient) -> str | None:
    """Return the name of the user who is signed in on the page."""
    answer = browser.post("/page/renew", headers=OWN, buffered=True)
    if answer.status_code != 200:
        return None
    return str(me(browser.application, answer.json["access_token"]).json["username"])


def come_back(browser: FlaskClient, issuer: StubIssuer) -> str:
    asked = begun(browser)
    return str(back(browser, code=issuer.agree(asked["url"]), state=asked["state"]).location)
