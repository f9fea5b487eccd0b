"""A real Chromium over a real Slipway, and a watch on what it says and whom it asks."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.conftest import Model, Slipway

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WAIT = 20_000  # ms until something must have appeared on the page


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One tab of its own, with everything it complained of and every address it asked."""

    page: Page
    url: str
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def _console(self, message: Any) -> None:
        # The browser writes a line of its own for every answer that is an error; the page tells those in words.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            self.complaints.append(message.text)

    def hosts(self) -> set[str]:
        return {urlsplit(url).netloc for url in self.asked}

    def sign_in(self, password: str = "demo-password", username: str = "demo", query: str = "") -> None:
        self.page.goto(f"{self.url}/{query}")
        self.page.get_by_label("User name").fill(username)
        self.page.get_by_label("Password").fill(password)
        self.page.get_by_role("button", name="Sign in").click()

    def ask(self, question: str, agent: str = "support") -> None:
        self.page.get_by_label("Agent", exact=True).select_option(agent)
        self.page.get_by_label("Your question").fill(question)
        self.page.get_by_role("button", name="Ask", exact=True).click()


@pytest.fixture
def visit(chromium: Browser, slipway: Slipway, model: Model) -> Iterator[Visit]:
    """A tab that must end without a complaint, and without having asked anybody but this Slipway."""
    model.reset()
    context = chromium.new_context(locale="en-US")
    context.set_default_timeout(WAIT)
    visit = Visit(context.new_page(), slipway.url)
    visit.watch()
    yield visit
    context.close()
    model.reset()
    assert visit.complaints == []
    assert visit.hosts() == {urlsplit(visit.url).netloc}
