"""Sign-in with `oidc-provider-mock`, a provider that others wrote, as a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx2
import pytest

from tests.conftest import PYTHON, free_port, process, wait_until
from tests.made import app_in, close
from tests.oidc.browser import back, signed_in


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    port = free_port()
    command = [PYTHON, "-m", "oidc_provider_mock", "--port", str(port)]
    with process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx2.get(f"{url}/jwks").status_code == 200, "the provider")
        yield url


def test_sign_in_with_a_provider_that_others_wrote(provider: str, tmp_path: Path) -> None:
    told = {"OIDC_ISSUER": provider, "OIDC_CLIENT_ID": "page", "OIDC_CLIENT_SECRET": "any-secret"}
    roles = {"OIDC_CREATE_USERS": "true", "OIDC_ROLES": "staff:operator", "OIDC_ROLE_CLAIM": "groups"}
    app = app_in(tmp_path, **told, **roles, PUBLIC_URL="http://localhost")
    claims = {"preferred_username": "grace", "groups": ["staff"]}
    assert httpx2.put(f"{provider}/users/g1", json=claims).status_code == 204
    with closing(httpx2.Client(trust_env=False)) as person:
        for sub, name in (("g1", "grace"), ("li@example.com", "li@example.com")):
            browser = app.test_client()
            there = browser.get("/page/oidc/begin").location
            assert person.get(there).status_code == 200
            answer = person.post(there, data={"sub": sub})
            assert answer.status_code in (302, 303), answer.text
            query = dict(parse_qsl(urlsplit(answer.headers["location"]).query))
            assert back(browser, **query).location == "/"
            assert signed_in(browser) == name
            assert back(browser, **query).location == "/#sign-in-failed=expired"
    assert app.extensions["slipway"].auth.users.by_name("grace").role == "operator"
    close(app)
