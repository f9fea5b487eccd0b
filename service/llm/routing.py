"""Which models a call may go to: the tier that is asked for, or one guessed from cheap signals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple, get_args

from service.types import Tier

TIERS: tuple[Tier, ...] = get_args(Tier)  # cheapest first

LONG_TEXT = 2_000  # characters: about a page
SHORT_TEXT = 200
MANY_TOOLS = 4
MANY_DIGITS = 12
CODE = re.compile(r"```|^\s*(?:def|class|import|function|SELECT|#include)\b|[{};]\s*$", re.MULTILINE)


class Bounds(NamedTuple):
    """What an agent allows: where `auto` starts, and the cheapest and dearest tier it may use."""

    default: Tier = "medium"
    floor: Tier = "simple"
    ceiling: Tier = "complex"


ANY = Bounds()


class Route(NamedTuple):
    """The tier, and its model first; then those to fall back on, cheaper ones before dearer ones."""

    tier: Tier
    models: tuple[str, ...]


class Router:
    """Stateless, so safe for every thread."""

    def __init__(self, models: Mapping[Tier, str]) -> None:
        missing = set(TIERS) - set(models)
        if missing:
            raise ValueError(f"no model for tier {', '.join(sorted(missing))}")
        self._models = dict(models)

    def route(
        self, tier: Literal["auto"] | Tier, text: str = "", tools: int = 0, bounds: Bounds = ANY
    ) -> Route:
        """`text` is the question and `tools` how many tools the agent has; a tier out of bounds is moved inside."""
        low, high = TIERS.index(bounds.floor), TIERS.index(bounds.ceiling)
        wanted = TIERS.index(bounds.default) + _lean(text, tools) if tier == "auto" else TIERS.index(tier)
        chosen = min(max(wanted, low), high)
        order = [chosen, *range(chosen - 1, low - 1, -1), *range(chosen + 1, high + 1)]
        return Route(TIERS[chosen], tuple(dict.fromkeys(self._models[TIERS[index]] for index in order)))

    def within(self, bounds: Bounds) -> list[str]:
        """Every model those bounds allow, cheapest first."""
        low, high = TIERS.index(bounds.floor), TIERS.index(bounds.ceiling)
        return list(dict.fromkeys(self._models[tier] for tier in TIERS[low : high + 1]))


def _lean(text: str, tools: int) -> int:
    """-1, 0 or 1: whether a question looks easier or harder than this agent's usual ones."""
    signals = [
        len(text) > LONG_TEXT,
        CODE.search(text) is not None,
        tools >= MANY_TOOLS,
        sum(map(str.isdigit, text)) >= MANY_DIGITS,
    ]
    if sum(signals) >= 2:
        return 1
    return -1 if text and len(text) < SHORT_TEXT and not any(signals) and tools == 0 else 0
