"""The page on a phone, a tablet and a desk: the composer stays in view, and the view follows what is written."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest

from tests.browser.conftest import Visit
from tests.conftest import Model, Slipway
from tests.web.people import PASSWORD

pytestmark = pytest.mark.browser
SIZES = [(390, 844), (800, 1000), (1280, 800)]
sizes = pytest.mark.parametrize("size", SIZES, ids=[str(width) for width, _ in SIZES])
LONG = "[offline tokens=900] Say something about the sea"
PLACES = """() => {
    const [log, ask] = [document.getElementById("log"), document.getElementById("ask").getBoundingClientRect()];
    const page = document.scrollingElement;
    return {
        composer: ask.top >= 0 && ask.bottom <= innerHeight && ask.left >= 0 && ask.right <= innerWidth,
        page: page.scrollHeight <= innerHeight && page.scrollWidth <= innerWidth,
        over: log.scrollHeight - log.clientHeight,
        top: log.scrollTop,
        left: log.scrollHeight - log.clientHeight - log.scrollTop,
    };
}"""


def places(visit: Visit) -> dict[str, Any]:
    """Where the composer is, whether the page itself scrolls, and how far the log is from its end."""
    found: dict[str, Any] = visit.page.evaluate(
        f"new Promise((r) => requestAnimationFrame(() => r(({PLACES})())))"
    )
    return found


def overflows(visit: Visit, by: int) -> None:
    """Wait until the log has so many pixels more than it shows."""
    visit.page.wait_for_function(
        "by => document.getElementById('log').scrollHeight > document.getElementById('log').clientHeight + by",
        arg=by,
    )


def assert_in_view(visit: Visit) -> None:
    found = places(visit)
    assert found["composer"], found
    assert found["page"], found


@sizes
def test_the_composer_stays_and_the_view_follows(visit: Visit, model: Model, size: tuple[int, int]) -> None:
    visit.page.set_viewport_size({"width": size[0], "height": size[1]})
    model.control(token_ms=3)
    visit.sign_in()
    visit.page.get_by_label("Your question").wait_for()
    assert_in_view(visit)
    visit.ask(LONG, agent="assistant")
    for by in (100, 300, 500):
        overflows(visit, by)
        assert_in_view(visit)
        assert places(visit)["left"] < 100  # what one frame adds may not be scrolled to yet
    visit.page.locator(".answer > .facts").wait_for()
    assert_in_view(visit)
    assert places(visit)["left"] < 2


@sizes
def test_reader_scrolled_up_is_not_moved(visit: Visit, model: Model, size: tuple[int, int]) -> None:
    page = visit.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    model.control(token_ms=8)
    visit.sign_in()
    visit.ask(LONG, agent="assistant")
    overflows(visit, 300)
    back = page.get_by_role("button", name="Newest")
    assert back.is_hidden()
    page.locator("#log").hover()
    page.mouse.wheel(0, -200)
    back.wait_for()
    before = places(visit)
    overflows(visit, before["over"] + 100)
    assert places(visit)["top"] == before["top"]
    assert_in_view(visit)
    back.click()
    back.wait_for(state="hidden")
    overflows(visit, places(visit)["over"] + 50)
    assert places(visit)["left"] < 100
    page.locator(".answer > .facts").wait_for()
    assert places(visit)["left"] < 2


def test_a_keyboard_on_the_screen_hides_nothing(visit: Visit) -> None:
    visit.page.set_viewport_size({"width": 390, "height": 844})
    visit.sign_in()
    visit.ask(LONG, agent="assistant")
    visit.page.locator(".answer > .facts").wait_for()
    visit.page.set_viewport_size({"width": 390, "height": 420})
    visit.page.get_by_label("Your question").fill("one\n" * 12)
    assert_in_view(visit)
    assert places(visit)["left"] < 2
    content = visit.page.locator('meta[name="viewport"]').get_attribute("content")
    assert content is not None and "interactive-widget=resizes-content" in content


@pytest.mark.parametrize("size", SIZES[:2], ids=["390", "800"])
def test_the_list_of_conversations_can_be_reached_and_goes_out_of_the_way(
    visit: Visit, size: tuple[int, int]
) -> None:
    page = visit.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visit.sign_in()
    visit.ask("Good morning", agent="assistant")
    page.locator(".answer > .facts").wait_for()
    assert page.locator("#new-session").is_hidden()
    page.locator("#drawer > summary").click()
    assert_in_view(visit)
    page.get_by_role("button", name="New conversation").click()
    page.locator(".welcome").wait_for()
    assert page.locator("#new-session").is_hidden()
    page.locator("#drawer > summary").click()
    page.locator(".open-session").first.click()
    page.locator(".turn").wait_for()
    assert page.locator("#new-session").is_hidden()


@pytest.mark.parametrize("size", SIZES[:2], ids=["390", "800"])
def test_a_long_user_name_pushes_nothing_out_of_the_page(
    visit: Visit, slipway: Slipway, size: tuple[int, int]
) -> None:
    page = visit.page
    name = f"margarethe.von-hohenstein-{size[0]}@accounts.department.example.com"
    with closing(slipway.client()) as admin:
        body = {"username": name, "password": PASSWORD, "role": "operator"}
        assert admin.post("/v1/admin/users", json=body).status_code == 201
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visit.sign_in(username=name, password=PASSWORD)
    page.get_by_label("Your question").wait_for()
    assert_in_view(visit)
    way_out, brand = (page.locator(part).bounding_box() for part in ("#sign-out", ".brand"))
    assert way_out and brand
    assert way_out["x"] + way_out["width"] <= size[0]
    assert way_out["y"] < brand["y"] + brand["height"]  # in the same line
    assert page.locator("#who").get_attribute("title") == f"{name} (operator)"


def test_the_first_answer_of_the_offline_model_moves_no_question(visit: Visit) -> None:
    visit.sign_in()
    visit.ask("[offline first_token_ms=300] Good morning", agent="assistant")
    question = visit.page.locator(".question")
    before = question.bounding_box()
    visit.page.locator("#offline").wait_for()
    visit.page.locator(".answer > .facts").wait_for()
    assert question.bounding_box() == before


def test_choosing_another_agent_keeps_the_typed_question(visit: Visit) -> None:
    visit.sign_in()
    question = visit.page.get_by_label("Your question")
    question.fill("What is 17% of 2340?")
    visit.page.get_by_label("Agent", exact=True).select_option("analyst")
    visit.page.locator(".welcome", has_text="analyst").wait_for()
    assert question.input_value() == "What is 17% of 2340?"


@sizes
def test_sections_fit_their_width(visit: Visit, size: tuple[int, int]) -> None:
    page = visit.page
    page.set_viewport_size({"width": size[0], "height": size[1]})
    visit.sign_in()
    visit.ask("x" * 300, agent="assistant")
    page.locator(".answer > .facts").wait_for()
    for name, shown in (
        ("Runs", "details.run"),
        ("Usage", "#usage-table"),
        ("Approvals", "#approvals-list > *"),
    ):
        page.get_by_role("link", name=name).click()
        page.locator(shown).first.wait_for()
        assert page.evaluate("document.scrollingElement.scrollWidth") <= size[0], name
