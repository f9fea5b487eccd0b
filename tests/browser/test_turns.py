"""Turns that do not just succeed: stopped, failed, waiting and under way, before and after a reload."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import Visit
from tests.browser.test_page import QUESTION
from tests.conftest import Model

pytestmark = pytest.mark.browser
SEA = "[offline tokens=400] Say something about the sea"


def reload(visit: Visit) -> None:
    visit.page.reload()
    visit.page.locator(".turn").first.wait_for()


def chip(visit: Visit, word: str) -> None:
    """Wait until the turn says so of itself."""
    visit.page.locator(".speaker .status", has_text=word).wait_for()


def assert_asked(visit: Visit, question: str) -> None:
    assert [text.rpartition("\n")[2] for text in visit.page.locator(".question").all_inner_texts()] == [
        question
    ]


def test_stop_keeps_the_partial_answer_without_an_error(visit: Visit, model: Model) -> None:
    model.control(token_ms=30)
    visit.sign_in()
    visit.ask(SEA, agent="assistant")
    visit.page.locator(".answer .text").wait_for()
    visit.page.get_by_role("button", name="Stop").click()
    chip(visit, "stopped")
    visit.page.get_by_role("button", name="Ask", exact=True).wait_for()
    said = visit.page.locator(".answer .text").inner_text()
    assert len(said) > 3
    for _ in range(2):
        assert_asked(visit, SEA)
        assert visit.page.locator(".problem").count() == 0
        assert visit.page.locator(".answer .text").inner_text() == said
        reload(visit)
        chip(visit, "stopped")


def test_stop_before_the_first_event_cancels_the_run(visit: Visit, model: Model) -> None:
    model.control(first_token_ms=30_000)
    visit.sign_in()
    visit.page.get_by_label("Your question").fill(SEA)
    visit.page.evaluate(
        "document.getElementById('ask').requestSubmit(); document.getElementById('stop').click()"
    )
    chip(visit, "stopped")
    assert visit.page.locator(".problem").count() == 0
    assert "Stopped before anything was said." in visit.page.locator(".answer").inner_text()


def test_escape_in_the_rename_form_stops_nothing(visit: Visit, model: Model) -> None:
    model.control(token_ms=10)
    visit.sign_in()
    visit.ask(SEA, agent="assistant")
    mine = visit.page.locator("#sessions > li.open")
    mine.hover()
    mine.get_by_role("button", name="Rename").click()
    mine.get_by_label("New name").press("Escape")
    mine.locator(".rename").wait_for(state="detached")
    visit.page.locator(".answer > .facts").wait_for()
    assert visit.page.locator(".speaker .status").count() == 0


def test_a_failed_turn_is_there_after_a_reload(visit: Visit, model: Model) -> None:
    model.control(fault="400")
    visit.sign_in()
    visit.ask(SEA, agent="assistant")
    chip(visit, "failed")
    told = visit.page.locator(".answer .problem strong").inner_text()
    for _ in range(2):
        assert_asked(visit, SEA)
        shown = visit.page.locator(".answer .problem")
        assert shown.locator("strong").inner_text() == told
        assert "model_rejected" in shown.inner_text()
        reload(visit)
        chip(visit, "failed")


def test_turns_of_every_kind_stay_in_their_order(visit: Visit, model: Model) -> None:
    page = visit.page
    visit.sign_in()
    visit.ask("Good morning", agent="assistant")
    page.locator(".answer > .facts").nth(0).wait_for()
    model.control(fault="400")
    page.get_by_label("Your question").fill("Will this fail?")
    page.keyboard.press("Enter")
    page.locator(".answer > .facts").nth(1).wait_for()
    model.control()
    page.get_by_label("Your question").fill("And good night")
    page.keyboard.press("Enter")
    page.locator(".answer > .facts").nth(2).wait_for()
    before = page.locator(".turn").all_inner_texts()
    reload(visit)
    page.locator(".turn").nth(2).wait_for()
    assert page.locator(".turn").all_inner_texts() == before


def test_a_turn_under_way_shows_its_question_and_goes_on_after_a_reload(visit: Visit, model: Model) -> None:
    model.control(token_ms=60)
    visit.sign_in()
    visit.ask(QUESTION)
    visit.page.locator(".answer .text").wait_for()
    reload(visit)
    assert_asked(visit, QUESTION)
    visit.page.get_by_role("button", name="Stop").wait_for()
    model.control()
    visit.page.locator(".answer .sources").wait_for()
    assert visit.page.locator(".turn").count() == 1
    assert "30 days" in visit.page.locator(".answer .text").inner_text()


def test_sources_and_tool_calls_can_be_read_again_after_a_reload(visit: Visit) -> None:
    page = visit.page
    visit.sign_in()
    visit.ask("What is 17% of 2340?", agent="analyst")
    page.locator(".answer > .facts").wait_for()
    tools = page.locator(".answer .tool")
    lines = [re.sub(r"·.*", "", text) for text in tools.all_inner_texts()]
    assert lines
    reload(visit)
    page.locator(".answer > .facts").wait_for()
    assert [re.sub(r"·.*", "", text) for text in tools.all_inner_texts()] == lines
    tools.first.locator("summary").click()
    tools.first.locator("dl.values").wait_for()
    assert "Result" in tools.first.inner_text()


def test_sources_after_a_reload(visit: Visit) -> None:
    visit.sign_in()
    visit.ask(QUESTION)
    visit.page.locator(".answer .sources").wait_for()
    before = visit.page.locator(".answer .sources").inner_text()
    reload(visit)
    visit.page.locator(".answer .sources").wait_for()
    assert visit.page.locator(".answer .sources").inner_text() == before
