"""Sign-in and bearer tokens with npm's `oidc-provider`: a certified provider that enforces PKCE and sends `iss`."""

from __future__ import annotations

import base64
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urljoin, urlsplit

import httpx2
import pytest
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from flask import Flask

from tests.conftest import free_port, process, wait_until
from tests.made import app_in, close
from tests.oidc.browser import back, signed_in
from tests.oidc.conftest import me

pytestmark = pytest.mark.grown
PACKAGE = "oidc-provider@9.13.3"
SCRIPT = Path(__file__).with_name("oidc_provider.mjs")
AUDIENCE = "https://slipway.example"
HOME = "http://localhost/page/oidc/callback"


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("there is no node on this machine")
    folder = tmp_path_factory.mktemp("provider")
    shutil.copy(SCRIPT, folder)
    command = [npm, "install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", PACKAGE]
    if subprocess.run(command, cwd=folder, capture_output=True, timeout=200).returncode:
        pytest.skip(f"npm cannot install {PACKAGE} here")
    port = free_port()
    with process(
        [node, SCRIPT.name, str(port), HOME, AUDIENCE],
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: httpx2.get(f"{url}/jwks").status_code == 200, "the provider")
        yield url


@pytest.fixture
def app(provider: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Flask]:
    secret = {"page": "a-secret-of-the-page", "public": ""}[getattr(request, "param", "page")]
    told = {"OIDC_ISSUER": provider, "OIDC_AUDIENCE": AUDIENCE, "PUBLIC_URL": "http://localhost"}
    told |= {"OIDC_CLIENT_ID": getattr(request, "param", "page"), "OIDC_CREATE_USERS": "true"}
    roles = {"OIDC_ROLES": "role-of-root:admin,slipway-operators:operator"}
    made = app_in(tmp_path, **told, **roles, **({"OIDC_CLIENT_SECRET": secret} if secret else {}))
    yield made
    close(made)


def agree(there: str, login: str) -> dict[str, str]:
    """Sign in and consent on the provider's own pages; return what a browser brings back."""
    with closing(httpx2.Client(trust_env=False)) as person:
        url, data = there, None
        for _ in range(12):
            answer = person.post(url, data=data) if data else person.get(url)
            data = None
            if answer.status_code == 200:
                prompt = "login" if 'value="login"' in answer.text else "consent"
                data = {"prompt": prompt, "login": login, "password": "any"}
                continue
            url = urljoin(url, answer.headers["location"])
            if url.startswith(HOME):
                return dict(parse_qsl(urlsplit(url).query))
    raise AssertionError("the provider led nowhere")


def tokens_of(provider: str, **asked: str) -> dict[str, Any]:
    """Tokens of the public client, by its own code flow."""
    verifier = "v" * 43
    query = {"client_id": "public", "response_type": "code", "redirect_uri": HOME, "scope": "openid profile"}
    proof = {"code_challenge": create_s256_code_challenge(verifier), "code_challenge_method": "S256"}
    brought = agree(f"{provider}/auth?{urlencode({**query, **proof, **asked})}", "ada")
    form = {"grant_type": "authorization_code", "redirect_uri": HOME, "client_id": "public"}
    told = {**form, "code": brought["code"], "code_verifier": verifier}
    answer = httpx2.post(f"{provider}/token", data=told, trust_env=False)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("app", ["page", "public"], indirect=True)
def test_sign_in(app: Flask) -> None:
    for login in ("ada", "root"):
        browser = app.test_client()
        brought = agree(browser.get("/page/oidc/begin").location, login)
        assert brought["iss"] == app.extensions["slipway"].settings.oidc_issuer
        stranger = app.test_client()
        assert back(stranger, **brought).location == "/#sign-in-failed=expired"
        assert back(browser, **{**brought, "iss": "https://evil.example"}).location.endswith("expired")
        browser = app.test_client()
        brought = agree(browser.get("/page/oidc/begin").location, login)
        assert back(browser, **brought).location == "/"
        assert signed_in(browser) == f"name-of-{login}"
    role = app.extensions["slipway"].auth.users.by_name("name-of-root").role
    assert role == "admin"


def test_code_needs_the_verifier_of_its_own_sign_in(app: Flask) -> None:
    victim, attacker = app.test_client(), app.test_client()
    stolen = agree(victim.get("/page/oidc/begin").location, "ada")
    own = agree(attacker.get("/page/oidc/begin").location, "eve")
    mixed = {**own, "code": stolen["code"]}
    assert back(attacker, **mixed).location == "/#sign-in-failed=expired"
    assert signed_in(attacker) is None


def test_access_token_of_a_robot(app: Flask, provider: str) -> None:
    secret = base64.b64encode(b"robot:a-secret-of-the-robot").decode()
    form = {"grant_type": "client_credentials", "resource": AUDIENCE, "scope": "use"}
    headers = {"Authorization": f"Basic {secret}"}
    answer = httpx2.post(f"{provider}/token", data=form, headers=headers, trust_env=False)
    assert answer.status_code == 200, answer.text
    caller = me(app, answer.json()["access_token"])
    assert caller.status_code == 200 and caller.json["role"] == "operator", caller.text


def test_access_token_of_a_person_and_no_other(app: Flask, provider: str) -> None:
    found = tokens_of(provider, resource=AUDIENCE, scope="openid profile use")
    assert me(app, found["access_token"]).json["role"] == "operator"
    assert me(app, found["id_token"]).status_code == 401
    opaque = tokens_of(provider)["access_token"]
    assert me(app, opaque).status_code == 401
