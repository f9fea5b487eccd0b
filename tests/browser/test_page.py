"""The web page as a person uses it: a real browser, a real service, the offline model."""

from __future__ import annotations

import secrets
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from tests.browser.conftest import Visit
from tests.conftest import Slipway

if TYPE_CHECKING:
    from playwright.sync_api import Route

pytestmark = pytest.mark.browser
QUESTION = "How many days do I have to ask for a refund?"


def test_ask_the_support_agent(visit: Visit) -> None:
    visit.sign_in()
    visit.ask(QUESTION)
    answer = visit.page.locator(".turn .answer")
    answer.locator(":scope > .facts").wait_for()
    assert visit.page.locator(".question").inner_text().endswith(QUESTION)
    assert "30 days" in answer.locator(".text").inner_text()
    assert "refunds.md" in answer.locator(".sources li").first.inner_text()
    assert answer.locator(".sources blockquote").first.inner_text() != ""
    facts = answer.locator(":scope > .facts").inner_text()
    assert "offline-" in facts and "tokens in" in facts and "$0." in facts
    assert answer.get_attribute("aria-busy") == "false"
    assert "a stand-in that can only quote" in visit.page.locator("#offline").inner_text()


def test_offline_notice_is_hidden_before_the_first_answer(visit: Visit) -> None:
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    assert visit.page.locator("#offline").is_hidden()


def test_wrong_password(visit: Visit) -> None:
    visit.sign_in("not the password")
    problem = visit.page.get_by_role("alert").locator(".problem")
    problem.wait_for()
    assert "Unknown user or wrong password" in problem.inner_text()
    assert "invalid_credentials" in problem.inner_text() and "request " in problem.inner_text()
    assert visit.page.evaluate("sessionStorage.length") == 0


def test_sign_in_to_the_workspace_that_the_address_names(visit: Visit, slipway: Slipway) -> None:
    with closing(slipway.client()) as admin:
        name = f"w-{secrets.token_hex(4)}"
        made = admin.post("/v1/admin/workspaces", json={"name": name}).json()
        body = {"username": "demo", "password": "a-password", "workspace_id": made["id"]}
        assert admin.post("/v1/admin/users", json=body).status_code == 201
    visit.sign_in("a-password")  # of `default`, where it is wrong
    visit.page.get_by_role("alert").locator(".problem").wait_for()
    visit.sign_in("a-password", query=f"?workspace={name}")
    visit.page.get_by_label("Your question").wait_for()
    visit.page.reload()
    visit.page.get_by_label("Your question").wait_for()


def test_sign_in_survives_a_reload_until_sign_out(visit: Visit) -> None:
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    visit.page.reload()
    visit.page.get_by_label("Your question").wait_for()
    visit.page.get_by_role("button", name="Sign out").click()
    visit.page.get_by_label("Password").wait_for()
    visit.page.reload()
    visit.page.get_by_label("Password").wait_for()
    assert visit.page.evaluate("sessionStorage.length") == 0


def test_scripts_can_read_no_token(visit: Visit) -> None:
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    kept = "JSON.stringify([document.cookie, {...localStorage}, {...sessionStorage}, window.name, history.state])"
    assert "eyJ" not in visit.page.evaluate(kept)
    [cookie] = visit.page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", "/")


def test_tabs_share_one_sign_in(visit: Visit) -> None:
    """Both renew at once; a refresh token that is spent twice would end the sign-in."""
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    other = visit.page.context.new_page()
    for _ in range(3):
        other.goto(visit.url, wait_until="commit")
        visit.page.reload(wait_until="commit")
        for page in (other, visit.page):
            page.get_by_label("Your question").wait_for()
    visit.page.get_by_role("button", name="Sign out").click()
    visit.page.get_by_label("Password").wait_for()
    other.reload()
    other.get_by_label("Password").wait_for()


def test_an_access_token_that_is_over_is_renewed_unseen(visit: Visit) -> None:
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    refused: list[str] = []

    def over_once(route: Route) -> None:
        if refused:
            return route.continue_()
        refused.append(route.request.url)
        route.fulfill(
            status=401, content_type="application/problem+json", body='{"status": 401, "title": "over"}'
        )

    visit.page.route("**/stream", over_once)
    visit.ask(QUESTION)
    visit.page.locator(".answer .sources").wait_for()
    assert len(refused) == 1
    assert sum(url.endswith("/page/renew") for url in visit.asked) == 2  # the first as the page was opened


def test_a_broken_stream_goes_on_after_the_last_event(visit: Visit) -> None:
    resumed: list[str | None] = []
    told: dict[str, Any] = {}

    def cut(route: Route) -> None:
        whole = route.fetch()
        events = whole.text().split("\n\n")
        told["text"] = "".join(events)
        half = "\n\n".join(events[:4]) + "\n\n" + events[4][:9]  # four events, and the beginning of one
        route.fulfill(status=200, content_type="text/event-stream", body=half)

    visit.page.route("**/stream", cut)
    visit.page.on(
        "request",
        lambda request: (
            resumed.append(request.headers.get("last-event-id")) if "/events" in request.url else None
        ),
    )
    visit.sign_in()
    visit.ask(QUESTION)
    visit.page.locator(".answer .sources").wait_for()
    assert [str(last).partition(":")[2] for last in resumed] == ["4"]
    assert visit.page.locator(".answer .text").count() == 1
    assert visit.page.locator(".answer .text").inner_text()[:40] in told["text"]


def test_refused_question_shows_the_problem_and_is_restored(visit: Visit) -> None:
    problem = '{"title": "A spending cap is reached", "detail": "The cap of the day.", "status": 402, "code": "budget_exceeded", "request_id": "req-1"}'  # noqa: E501
    visit.page.route(
        "**/stream",
        lambda route: route.fulfill(status=402, content_type="application/problem+json", body=problem),
    )
    visit.sign_in()
    visit.ask(QUESTION)
    shown = visit.page.locator(".answer .problem")
    shown.wait_for()
    assert [
        word
        for word in ("spending cap", "The cap of the day.", "budget_exceeded", "req-1")
        if word not in shown.inner_text()
    ] == []
    assert visit.page.get_by_label("Your question").input_value() == QUESTION


def test_questions_and_answers_are_shown_as_text(visit: Visit) -> None:
    evil = "<img src=x onerror=document.title='owned'><b>bold</b> **strong**"
    visit.sign_in()
    visit.ask(evil, agent="assistant")
    visit.page.locator(".answer > .facts").wait_for()
    assert evil in visit.page.locator(".question").inner_text()
    assert visit.page.locator(".log img, .log b").count() == 0
    assert visit.page.title() == "Slipway"


def test_by_keyboard_alone(visit: Visit) -> None:
    visit.page.goto(visit.url)
    visit.page.locator("#username:focus").wait_for()
    for keys in ("demo", "demo-password"):
        visit.page.keyboard.type(keys)
        visit.page.keyboard.press("Tab")
    visit.page.keyboard.press("Enter")
    visit.page.locator("#question:focus").wait_for()
    visit.page.keyboard.type(QUESTION)
    visit.page.keyboard.press("Enter")
    visit.page.locator(".answer .sources").wait_for()


@pytest.mark.parametrize("path", ["/", "/docs", "/docs/errors"])
def test_fits_a_phone(visit: Visit, path: str) -> None:
    visit.page.set_viewport_size({"width": 360, "height": 700})
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    if path == "/":
        visit.ask(QUESTION)
        visit.page.locator(".answer .sources").wait_for()
    else:
        visit.page.goto(visit.url + path)
        visit.page.locator(".route, td").first.wait_for()
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_every_control_has_a_name(visit: Visit) -> None:
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    nameless = visit.page.evaluate(
        """() => [...document.querySelectorAll("button, a, input, select, textarea")]
            .filter((one) => !one.labels?.length && !one.getAttribute("aria-label"))
            .filter((one) => !/^(A|BUTTON)$/.test(one.tagName) || !one.textContent.trim())
            .map((one) => one.outerHTML)"""
    )
    assert nameless == []


def test_the_reference_shows_every_route(visit: Visit) -> None:
    visit.page.goto(f"{visit.url}/docs")
    visit.page.locator(".route").first.wait_for()
    described = visit.page.evaluate("fetch('/openapi.json').then((answer) => answer.json())")
    routes = {f"{method}{path}" for path, methods in described["paths"].items() for method in methods}
    assert set(visit.page.locator(".route").evaluate_all("all => all.map((one) => one.id)")) == routes
    stream = visit.page.locator('[id="post/v1/agents/{agent}/stream"]')
    assert all(
        word in stream.inner_text()
        for word in ("run.completed", "session_id", "429", "rate_limited", "curl -sN")
    )


def test_the_reference_begins_with_the_doors(visit: Visit) -> None:
    """With examples for this address, of the doors that the service has."""
    visit.page.goto(f"{visit.url}/docs")
    visit.page.locator(".door").first.wait_for()
    names = visit.page.locator(".door summary").all_inner_texts()
    assert {"OpenAI Chat Completions /v1/chat/completions", "Anthropic Messages /v1/messages"} <= set(names)
    visit.page.get_by_text("Anthropic Messages").click()
    assert f'base_url="{visit.url}"' in visit.page.locator(".door[open]").inner_text()


def test_the_reference_can_be_searched(visit: Visit) -> None:
    visit.page.goto(f"{visit.url}/docs")
    visit.page.locator(".route").first.wait_for()
    visit.page.get_by_label("Find a route").fill("auth log")
    shown = visit.page.locator(".route:visible").evaluate_all("all => all.map((one) => one.id)")
    assert shown == ["post/v1/auth/login", "post/v1/auth/logout"]
