"""Redirects of a sign-in: no spelling of its addresses leads anywhere else."""

from __future__ import annotations

from urllib.parse import parse_qs, quote, urlsplit

import pytest
from flask import Flask

from tests.oidc.browser import CALLBACK, begun
from tests.oidc.conftest import unasked
from tests.oidc.issuer import CLIENT, StubIssuer


@pytest.fixture
def app(shared: Flask, issuer: StubIssuer, monkeypatch: pytest.MonkeyPatch) -> Flask:
    return unasked(shared, monkeypatch)


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
