"""Sign-in with SSO in a real browser: away to a provider on another site, and back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest

from tests.browser.conftest import WAIT, Visit
from tests.conftest import PYTHON, Model, RedisServer, free_port, process, slipway_server, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def provider() -> Iterator[str]:
    port = free_port()
    command = [PYTHON, "-m", "oidc_provider_mock", "--port", str(port)]
    with process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL):
        wait_until(lambda: httpx2.get(f"http://127.0.0.1:{port}/jwks").status_code == 200, "the provider")
        yield f"http://localhost:{port}"  # another site than 127.0.0.1


@pytest.fixture(scope="module")
def url(provider: str, scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[str]:
    port = free_port()
    told = {"OIDC_ISSUER": provider, "OIDC_CLIENT_ID": "page", "OIDC_CLIENT_SECRET": "any-secret"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.conftest.free_port", lambda: port)
        address = f"http://127.0.0.1:{port}"
        with slipway_server(
            scratch / "sso", redis_server.url, model.url, PUBLIC_URL=address, OIDC_CREATE_USERS="true", **told
        ) as server:
            yield server.url


@pytest.fixture
def visit(chromium: Browser, url: str) -> Iterator[Visit]:
    context = chromium.new_context(locale="en-US")
    context.set_default_timeout(WAIT)
    visit = Visit(context.new_page(), url)
    visit.watch()
    yield visit
    context.close()
    assert visit.complaints == []


def test_sign_in_with_sso(visit: Visit) -> None:
    """Signed in over a reload too: the browser takes the strict cookie that comes with the way back."""
    page = visit.page
    page.goto(visit.url)
    page.get_by_role("link", name="Sign in with SSO").click()
    page.locator("input[name=sub]").fill("grace@example.com")
    page.locator("input[name=sub]").press("Enter")
    page.get_by_text("grace@example.com", exact=True).wait_for()
    assert page.url in (f"{visit.url}/", f"{visit.url}/#chat")
    page.reload()
    page.get_by_text("grace@example.com", exact=True).wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("link", name="Sign in with SSO").wait_for()
    page.reload()
    page.get_by_role("link", name="Sign in with SSO").wait_for()


def test_failure_is_told_once(visit: Visit) -> None:
    page = visit.page
    page.goto(f"{visit.url}/page/oidc/callback?code=x&state=x")
    page.get_by_text("The sign-in took too long").wait_for()
    assert page.url == f"{visit.url}/"
    page.reload()
    page.get_by_role("link", name="Sign in with SSO").wait_for()
    assert page.get_by_text("The sign-in took too long").count() == 0


def test_nobody_writes_on_the_page_by_a_link(visit: Visit) -> None:
    page = visit.page
    for hash_ in ("#sign-in-failed=<b>x</b>", "#sign-in-failed=constructor", "#sign-in-failed="):
        page.goto(f"{visit.url}/{hash_}")
        page.reload()
        page.get_by_role("link", name="Sign in with SSO").wait_for()
        assert page.locator("#sign-in-problem").inner_text() == ""
