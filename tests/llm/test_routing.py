from __future__ import annotations

import pytest

from service.llm.routing import Bounds, Router
from service.types import Tier

MODELS: dict[Tier, str] = {"simple": "small", "medium": "middle", "complex": "large"}
ROUTER = Router(MODELS)
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
    assert Router({"simple": "one", "medium": "one", "complex": "one"}).route("medium").models == ("one",)


def test_every_tier_needs_a_model() -> None:
    with pytest.raises(ValueError, match="complex"):
        Router({"simple": "small", "medium": "middle"})
