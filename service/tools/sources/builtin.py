"""Built-in tools, which every agent may list without code of its own; further ones are in `web` and `tables`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field

from service.tools.base import Tool, ToolContext, ToolFailed, ToolOutput, tool
from service.tools.calculator import MAX_LENGTH, CalculationError, calculate


@tool(idempotent=True, risk="read", timeout=5, trusted=True)
def calculator(expression: Annotated[str, Field(min_length=1, max_length=MAX_LENGTH)]) -> str:
    """Work out an arithmetic expression exactly. Use it for every calculation, however small.

    Knows + - * / // % ** and parentheses, round(x, places), min, max, abs, sqrt, and percentages:
    "17% of 2,340" and "2340 * (1 + 17%)". Round halves go away from zero.

    Args:
        expression: The expression, with numbers only: no units, no names.
    """
    try:
        return calculate(expression)
    except CalculationError as error:
        raise ToolFailed(f"Cannot calculate that: {error}") from None


@tool(idempotent=True, risk="read", timeout=5, trusted=True)
def search_knowledge(
    query: Annotated[str, Field(min_length=1, max_length=1000)],
    context: ToolContext,
    category: str | None = None,
) -> ToolOutput:
    """Search the product's own documents and figures. Use it before answering anything about the product.

    Args:
        query: A few words that the answer would contain.
        category: Search only this part of the documents. Leave it out when unsure.
    """
    knowledge = context.knowledge
    if knowledge is None:
        raise ToolFailed("This agent has no knowledge to search")
    if category is not None and category not in knowledge.categories:
        raise ToolFailed("No such category; there are: " + ", ".join(sorted(knowledge.categories)))
    found = knowledge.search(query, category)
    results = [{"title": one.title, "uri": one.uri, "text": one.text} for one in found]
    return ToolOutput({"results": results}, [one.source for one in found])


BUILTINS: Mapping[str, Tool] = MappingProxyType(
    {one.name: replace(one, local=True) for one in (calculator, search_knowledge)}
)


class BuiltinTools:
    """Tool source of the built-in tools, the same for every agent."""

    kind = "built-in"
    file = ""

    def tools(self, folder: Path) -> Mapping[str, Tool]:
        return BUILTINS
