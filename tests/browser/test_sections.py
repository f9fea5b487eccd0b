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
    page.reload()
    page.locator(".turn").nth(1).wait_for()
    assert page.locator(".turn").first.locator(".question").inner_text().endswith(QUESTION)
    assert "30 days" in page.locator(".turn").first.locator(".text").inner_text()
    mine = page.locator("#sessions > li.open")
    name = mine.get_attribute("data-id")
    mine.hover()
    for _ in range(2):
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
    assert page.locator(f"#sessions > li[data-id='{name}']").count() == 0


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


def test_pending_approval_is_shown_to_its_user_and_listed_for_operators(
    visit: Visit, office: Slipway
) -> None:
    visit.url = office.url
    page = visit.page
    with closing(office.client()) as admin, closing(join(office, admin)) as user:
        name = user.get("/v1/auth/me").json()["username"]
        user.post("/v1/agents/clerk/invoke", json={"input": 'Call the write_line tool with "please".'})
    visit.sign_in(username=name, password=PASSWORD)
    page.get_by_role("link", name="Approvals").click()
    page.locator("#approvals").get_by_text("An operator decides.").wait_for()
    assert page.get_by_role("button", name="Approve").count() == 0
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label(
        "Password"
    ).wait_for()  # the page loads itself anew: another address would be cut off by it
    visit.sign_in()
    page.get_by_role("link", name="Approvals").click()
    page.locator(".approval").get_by_role("button", name="Deny").click()
    page.locator("#approvals").get_by_text("Denied.").wait_for()


def test_approval_shows_user_question_and_session(visit: Visit, office: Slipway) -> None:
    visit.url = office.url
    page = visit.page
    question = 'Call the write_line tool with "to\u202ehow <b>Bob</b>".'
    with closing(office.client()) as admin, closing(join(office, admin)) as user:
        name = user.get("/v1/auth/me").json()["username"]
        session = user.post("/v1/sessions", json={"agent": "clerk", "title": "Letters to Bob"}).json()["id"]
        user.post("/v1/agents/clerk/invoke", json={"input": question, "session_id": session})
        user.post("/v1/agents/clerk/invoke", json={"input": 'Call the write_line tool with "last".'})
    visit.sign_in()
    page.get_by_role("link", name="Approvals").click()
    card = page.get_by_role("article").filter(has_text="Letters to Bob")
    card.wait_for()
    shown = card.inner_text()
    assert f"{name} asked clerk" in shown and question.replace("\u202e", "U+202E") in shown
    assert "Write a line." in shown and "Changes something; not to be repeated unseen." in shown
    assert card.locator("time").count() == 2  # asked, and the end
    assert card.locator("dl.values dt").inner_text() == "text"
    assert card.locator("dl.values dd").inner_text() == "toU+202Ehow <b>Bob</b>"
    card.get_by_role("button", name="Deny").click()
    card.get_by_text("Denied.").wait_for()
    # On to the next one: Enter must not decide about it.
    focused = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert focused == "Approval of write_line"
    assert page.evaluate("document.activeElement.innerText").startswith(f"{name} asked clerk")
    card.get_by_role("link", name="Run so far").click()
    page.locator("details.run[open] .question").wait_for()
    assert page.locator("details.run").count() == 1
    page.get_by_role("link", name="Open the conversation").click()
    page.get_by_text("This is somebody else's conversation").wait_for()
    page.locator(".turn").first.wait_for()
    assert question.replace("\u202e", "") in page.locator(".question").first.inner_text().replace(
        "\u202e", ""
    )
    assert page.get_by_label("Your question").is_hidden()
    page.goto(f"{office.url}/#approvals")
    page.locator(".approval").get_by_role("button", name="Deny").click()
    page.locator("#approvals").get_by_text("Denied.").wait_for()


def test_approval_decided_elsewhere_offers_no_buttons(visit: Visit, office: Slipway) -> None:
    visit.url = office.url
    page = visit.page
    words = ("first", "second", "third")
    with closing(office.client()) as admin, closing(join(office, admin)) as user:
        asked = [{"input": f'Call the write_line tool with "{word}".'} for word in words]
        runs = [user.post("/v1/agents/clerk/invoke", json=body).json() for body in asked]
        visit.sign_in()
        page.get_by_role("link", name="Approvals").click()
        first, second, third = (
            page.get_by_role("article").filter(has_text=f'with "{word}"') for word in words
        )
        third.wait_for()
        for run in runs[:2]:
            admin.post(f"/v1/approvals/{run['approvals'][0]}", json={"decision": "deny"})
    first.get_by_role("button", name="Approve").click()
    first.get_by_text("Your decision came too late. This approval is denied already.").wait_for()
    # The look that follows a decision finds the other one.
    second.get_by_text("Waits no more").wait_for()
    assert first.get_by_role("button").count() == second.get_by_role("button").count() == 0
    third.get_by_role("button", name="Deny").click()
    third.get_by_text("Denied.").wait_for()


def test_user_sees_changed_arguments_and_the_comment(visit: Visit, office: Slipway) -> None:
    visit.url = office.url
    page = visit.page
    visit.sign_in()
    visit.ask('Call the write_line tool with "rough".', agent="clerk")
    card = page.locator(".answer .approval")
    card.wait_for()
    with closing(office.client()) as operator:
        [asked] = operator.get("/v1/approvals?status=pending").json()["data"]
        decision = {"decision": "approve", "arguments": {"text": "smooth"}, "comment": "Be kind."}
        operator.post(f"/v1/approvals/{asked['id']}", json=decision)
    page.locator(".answer > .facts").wait_for()
    told = card.locator(".outcome").inner_text()
    assert told == "Approved. The call was made with other arguments than these. “Be kind.”"


def test_a_question_that_waits_is_shown_after_a_reload_and_goes_on_once_decided(
    visit: Visit, office: Slipway
) -> None:
    visit.url = office.url
    page = visit.page
    visit.sign_in()
    visit.ask('Call the write_line tool with "later".', agent="clerk")
    page.locator(".answer .approval").wait_for()
    page.reload()
    card = page.locator(".answer .approval")
    card.wait_for()
    assert "later" in page.locator(".question").inner_text()
    assert page.locator(".speaker .status").inner_text() == "waiting for approval"
    card.get_by_role("button", name="Approve").click()
    page.locator(".answer > .facts").wait_for()
    assert page.locator(".speaker .status").count() == 0


def test_a_run_that_waits_is_stopped_at_once(visit: Visit, office: Slipway) -> None:
    visit.url = office.url
    page = visit.page
    visit.sign_in()
    visit.ask('Call the write_line tool with "never".', agent="clerk")
    page.locator(".answer .approval").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.locator(".speaker .status", has_text="stopped").wait_for()
    assert page.locator(".answer .problem").count() == 0
    assert page.locator(".answer .approval .choice").count() == 0
