"""Sign-in of the web page: the refresh token in a cookie, and requests of other sites refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import httpx2
import pytest

from service.web import page_cookie
from tests.conftest import Slipway

OWN = {page_cookie.HEADER: "1"}
LOGIN = {"username": "demo", "password": "demo-password"}
ROUTES = ["/page/sign-in", "/page/renew", "/page/sign-out"]


@pytest.fixture
def browser(slipway: Slipway) -> Iterator[httpx2.Client]:
    """A client that keeps cookies, and sends the page's header."""
    with closing(slipway.visitor()) as client:
        client.headers.update(OWN)
        yield client


def signed_in(browser: httpx2.Client) -> str:
    answer = browser.post("/page/sign-in", json=LOGIN)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"access_token", "token_type", "expires_in"}
    return str(answer.json()["access_token"])


def works(browser: httpx2.Client, token: str) -> bool:
    return browser.get("/v1/auth/me", headers={"Authorization": f"Bearer {token}"}).status_code == 200


def test_no_script_can_read_the_cookie_and_no_other_site_can_send_it(browser: httpx2.Client) -> None:
    answer = browser.post("/page/sign-in", json=LOGIN)
    [cookie] = answer.headers.get_list("set-cookie")
    flags = {part.strip() for part in cookie.split(";")[1:]}
    assert {"HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=2592000"} <= flags
    assert "Domain" not in cookie and answer.headers["cache-control"] == "no-store"


def test_renewal_spends_the_cookie(browser: httpx2.Client) -> None:
    first = signed_in(browser)
    old = browser.cookies["slipway"]
    answer = browser.post("/page/renew")
    assert (
        answer.status_code == 200 and works(browser, answer.json()["access_token"]) and works(browser, first)
    )
    browser.cookies.set("slipway", old, domain=str(browser.base_url.host))
    again = browser.post("/page/renew")
    assert again.status_code == 401 and again.json()["code"] == "invalid_token"
    assert "Max-Age=0" in again.headers["set-cookie"]
    assert not works(browser, answer.json()["access_token"])  # a stolen cookie ends the whole log-in


def test_nobody_is_signed_in(browser: httpx2.Client) -> None:
    answer = browser.post("/page/renew")
    assert (answer.status_code, answer.content) == (204, b"")


@pytest.mark.parametrize(
    "cookie", ["x", "a.b.c", "eyJhbGciOiJub25lIn0.e30.", "\N{LATIN SMALL LETTER E WITH ACUTE}"]
)
def test_made_up_cookie_is_refused_and_dropped(browser: httpx2.Client, cookie: str) -> None:
    headers = {"Cookie": f"slipway={cookie}".encode()}
    answer = browser.post("/page/renew", headers=headers)
    assert answer.status_code == 401 and "Max-Age=0" in answer.headers["set-cookie"]
    assert browser.post("/page/sign-out", headers=headers).status_code == 204


def test_access_token_is_no_cookie(browser: httpx2.Client) -> None:
    token = signed_in(browser)
    browser.cookies.set("slipway", token, domain=str(browser.base_url.host))
    assert browser.post("/page/renew").status_code == 401


def test_cookie_alone_calls_nothing(browser: httpx2.Client) -> None:
    signed_in(browser)
    assert browser.get("/v1/auth/me").status_code == 401


def test_sign_out_ends_the_log_in_at_once(browser: httpx2.Client) -> None:
    token = signed_in(browser)
    answer = browser.post("/page/sign-out")
    assert answer.status_code == 204 and "Max-Age=0" in answer.headers["set-cookie"]
    assert not works(browser, token)
    assert browser.post("/page/renew").status_code == 204  # the cookie is gone
    assert browser.post("/page/sign-out").status_code == 204


@pytest.mark.parametrize("path", ROUTES)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Sec-Fetch-Site": "same-origin"},
        {**OWN, "Sec-Fetch-Site": "cross-site"},
        {**OWN, "Sec-Fetch-Site": "same-site"},
        {**OWN, "Sec-Fetch-Site": "none"},
    ],
)
def test_other_sites_are_refused(slipway: Slipway, path: str, headers: dict[str, str]) -> None:
    with closing(slipway.visitor()) as browser:
        assert browser.post("/page/sign-in", json=LOGIN, headers=OWN).status_code == 200
        answer = browser.post(path, json=LOGIN if path == "/page/sign-in" else None, headers=headers)
        assert answer.status_code == 403 and answer.json()["code"] == "cross_site"
        assert browser.post("/page/renew", headers=OWN).status_code == 200  # nothing was spent


def test_wrong_password_sets_no_cookie(browser: httpx2.Client) -> None:
    answer = browser.post("/page/sign-in", json={**LOGIN, "password": "not that one"})
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
