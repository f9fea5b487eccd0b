"""Models as agents: a model of the price table that is asked by its name, without a prompt or tools of anybody's."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from service.agents.definitions import MODEL_ITSELF, AgentDefinition
from service.agents.patterns.single import Options
from service.agents.spec import MOST_TOKENS, CacheSpec, LimitSpec, TierSpec
from service.llm.routing import ModelRouter
from service.usage.prices import PriceTable, today

LONGEST = 3_600.0  # seconds; `RUN_TIMEOUT` bounds it further


def model_agent(name: str, prices: PriceTable) -> AgentDefinition | None:
    """Return a model as an agent of pattern `single`. None: it has no price today, or no provider.

    Its id is the name in the price table, whatever date `name` ends with: caps, stops and scopes of a model are met by
    each of its names, and there are as many as rows.
    """
    if prices.provider(name) is None:
        return None
    model = prices.price(name, today()).model
    return AgentDefinition(
        id=model,
        folder=Path(),
        version=MODEL_ITSELF,
        prompt="",
        description=f"The model {model}",
        pattern="single",
        tier=TierSpec(ask=False),
        model_router=ModelRouter({"simple": model, "medium": model, "complex": model}),
        max_tokens=MOST_TOKENS,
        effort=None,
        history_tokens=None,
        context_tokens=None,
        tools=MappingProxyType({}),
        approvals=(),
        flows=MappingProxyType({}),
        links=(),
        limits=LimitSpec(seconds=LONGEST),
        cache=CacheSpec(),
        options=Options(),
    )
