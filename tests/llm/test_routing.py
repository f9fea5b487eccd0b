from __future__ import annotations

import pytest

from service.llm.routing import LONG_TEXT, Bounds, ModelRouter, excerpt, parse_tier
from service.types import Tier

MODELS: dict[Tier, str] = {"simple": "small", "medium": "middle", "complex": "large"}
ROUTER = ModelRouter(MODELS)
USUAL = "Could you compare the two plans for a team of ten, and say which suits us better? " * 4


@pytest.mark.parametrize(
    ("tier", "models"),
    [
        ("simple", ("small", "middle", "large")),
        ("medium", ("middle", "small", "large")),
        ("complex", ("large", "middle", "small")),
    ],
)
def test_a_tier_that_is_asked_for(tier: Tier, models: tuple[str, ...]) -> None:
    assert ROUTER.route(tier, text="Hi") == (tier, models)


def test_the_agent_s_bounds_hold() -> None:
    bounds = Bounds("medium", floor="medium", ceiling="medium")
    for tier in ("auto", "simple", "medium", "complex"):
        assert ROUTER.route(tier, text="Hi", bounds=bounds) == ("medium", ("middle",))


@pytest.mark.parametrize(
    ("text", "tools", "tier"),
    [
        ("", 0, "medium"),
        ("What time is it?", 0, "simple"),
        ("What time is it?", 1, "medium"),
        (USUAL, 0, "medium"),
        (USUAL * 10, 0, "medium"),
        (USUAL * 10, 4, "complex"),
        ("Why is this slow?\n```\nfor x in y: ...\n```", 0, "medium"),
        ("def f(x):\n    return x\n" + USUAL * 10, 0, "complex"),
        ("Add 1234567, 89101112 and 13141516", 5, "complex"),
    ],
)
def test_auto_leans_by_cheap_signals(text: str, tools: int, tier: Tier) -> None:
    assert ROUTER.route("auto", text, tools).tier == tier


def test_auto_starts_from_the_agent_s_default() -> None:
    assert ROUTER.route("auto", USUAL, bounds=Bounds("complex")).tier == "complex"
    assert ROUTER.route("auto", "Hi", bounds=Bounds("simple")).tier == "simple"


def test_one_model_for_every_tier_is_tried_once() -> None:
    assert ModelRouter({"simple": "one", "medium": "one", "complex": "one"}).route("medium").models == (
        "one",
    )


def test_every_tier_needs_a_model() -> None:
    with pytest.raises(ValueError, match="complex"):
        ModelRouter({"simple": "small", "medium": "middle"})


@pytest.mark.parametrize(
    ("text", "tools", "unsure"),
    [
        ("What time is it?", 0, False),  # nothing speaks for a hard question
        (USUAL, 0, False),
        (USUAL * 10, 0, True),  # long, but neither code nor figures
        ("Why is this slow?\n```\nfor x in y: ...\n```", 0, True),
        ("Add 1234567, 89101112 and 13141516", 1, True),
        ("def f(x):\n    return x\n" + USUAL * 10, 0, False),  # hard by two signs
        (USUAL * 10, 4, False),
        ("What time is it?", 4, False),
    ],
)
def test_the_cheap_model_is_asked_only_where_signs_contradict_each_other(
    text: str, tools: int, unsure: bool
) -> None:
    assert ROUTER.unsure("auto", text, tools) is unsure
    assert not ROUTER.unsure("medium", text, tools)
    assert not ROUTER.unsure("auto", text, tools, Bounds(ask=False))
    assert not ROUTER.unsure("auto", text, tools, Bounds(floor="medium", ceiling="medium"))


def test_the_cheap_model_is_shown_how_a_question_begins_and_ends() -> None:
    assert excerpt(USUAL) == USUAL
    long = "begin " + "x" * 10_000 + " end?"
    shown = excerpt(long)
    assert shown.startswith("begin") and shown.endswith("end?") and len(shown) < LONG_TEXT + 10


@pytest.mark.parametrize(
    "said", ["", "simple", "[]", "null", '{"tier": "huge"}', '{"tier": ["simple"]}', "{}"]
)
def test_an_answer_without_a_tier_says_nothing(said: str) -> None:
    assert parse_tier(said) is None


def test_the_tier_in_an_answer() -> None:
    assert parse_tier('{"tier": "complex"}') == "complex"
