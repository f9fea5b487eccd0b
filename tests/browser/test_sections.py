"""Conversations, approvals and runs on the web page."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.browser.conftest import Visit
from tests.browser.test_page import QUESTION
from tests.conftest import Model, RedisServer, Slipway, slipway_server
from tests.web.people import PASSWORD, join

pytestmark = pytest.mark.browser
CLERK = """\
description: Writes lines, after asking
pattern: react
tier: {default: simple}
tools: [write_line]
approvals: [write_line]
limits: {steps: 4, seconds: 60}
"""
TOOLS = """\
from service.tools import tool


@tool()
def write_line(text: str) -> str:
    \"\"\"Write a line.\"\"\"
    return f"written: {text}"
"""


@pytest.fixture(scope="module")
def office(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    """A Slipway with an agent that asks before it acts."""
    folder = scratch / "office-agents" / "clerk"
    folder.mkdir(parents=True)
    for name, text in {"agent.yaml": CLERK, "tools.py": TOOLS, "prompt.md": "You write lines."}.items():
        (folder / name).write_text(text)
    home = scratch / "office"
    with slipway_server(home, redis_server.url, model.url, AGENTS_DIR=str(folder.parent)) as server:
        yield server


def test_runs_are_listed_and_can_be_looked_into(visit: Visit) -> None:
    visit.sign_in()
    visit.ask(QUESTION)
    visit.page.locator(".answer .sources").wait_for()
    visit.page.get_by_role("link", name="Runs").click()
    run = visit.page.locator("details.run").first
    run.locator("summary").click()
    run.locator(".sources").wait_for()
    assert "succeeded" in run.locator("summary").first.inner_text()
    assert "30 days" in run.locator(".text").inner_text()


def test_a_conversation_is_kept_renamed_and_deleted(visit: Visit) -> None:
    page = visit.page
    visit.sign_in()
    visit.ask(QUESTION)
    page.locator(".answer .sources").wait_for()
    visit.page.get_by_label("Your question").fill("And who answers the phone?")
    visit.page.keyboard.press("Enter")
    page.locator(".answer > .facts").nth(1).wait_for()
    sessions = page.locator("#sessions > li")
    before = sessions.count()
    page.reload()
    page.locator(".turn").nth(1).wait_for()
    assert page.locator(".turn").first.locator(".question").inner_text().endswith(QUESTION)
    assert "30 days" in page.locator(".turn").first.locator(".text").inner_text()
    mine = page.locator("#sessions > li.open")
    mine.hover()
    mine.get_by_role("button", name="Rename").click()
    mine.get_by_label("New name").fill("About refunds")
    page.keyboard.press("Enter")
    mine.locator(".rename").wait_for(state="detached")
    page.reload()
    page.locator("#sessions > li.open").get_by_text("About refunds").wait_for()
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#sessions > li.open").hover()
    page.locator("#sessions > li.open").get_by_role("button", name="Delete").click()
    page.locator(".welcome").wait_for()
    assert sessions.count() == before - 1


def test_a_turn_that_is_under_way_is_taken_up_after_a_reload(visit: Visit, model: Model) -> None:
    model.control(token_ms=60)
    visit.sign_in()
    visit.ask(QUESTION)
    visit.page.locator(".answer .text").wait_for()
    visit.page.reload()
    model.control()
    visit.page.locator(".answer .sources").wait_for()
    assert "30 days" in visit.page.locator(".answer .text").inner_text()


@pytest.mark.parametrize(
    ("button", "outcome", "said"), [("Approve", "Approved.", "written"), ("Deny", "Denied.", "denied")]
)
def test_an_operator_decides(visit: Visit, office: Slipway, button: str, outcome: str, said: str) -> None:
    visit.url = office.url
    page = visit.page
    visit.sign_in()
    visit.ask('Call the write_line tool with "hello".', agent="clerk")
    card = page.locator(".answer .approval")
    card.wait_for()
    assert "hello" in card.inner_text()
    card.get_by_label("Comment").fill("because")
    card.get_by_role("button", name=button).click()
    card.get_by_text(outcome).wait_for()
    page.locator(".answer > .facts").wait_for()
    assert said in page.locator(".answer .tool").first.text_content().lower()  # type: ignore[union-attr]
    page.get_by_role("link", name="Approvals").click()
    page.get_by_text("Nothing waits for a decision.").wait_for()


def test_a_user_sees_what_waits_and_an_operator_finds_it_in_the_list(visit: Visit, office: Slipway) -> None:
    visit.url = office.url
    page = visit.page
    with closing(office.client()) as admin, closing(join(office, admin)) as user:
        name = user.get("/v1/auth/me").json()["username"]
        user.post("/v1/agents/clerk/invoke", json={"input": 'Call the write_line tool with "please".'})
    visit.sign_in(username=name, password=PASSWORD)
    page.get_by_role("link", name="Approvals").click()
    page.get_by_text("An operator decides.").wait_for()
    assert page.get_by_role("button", name="Approve").count() == 0
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label(
        "Password"
    ).wait_for()  # the page loads itself anew: another address would be cut off by it
    visit.sign_in()
    page.get_by_role("link", name="Approvals").click()
    page.locator(".approval").get_by_role("button", name="Deny").click()
    page.get_by_text("Denied.").wait_for()
