"""Choice among a client's functions, in the forms that Chat Completions has for it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from service.web.client_conversation import MAX_TOOLS, ToolName, narrowed
from service.web.schemas import Body

Mode = Literal["auto", "none", "required"]


class NamedFunction(Body):
    name: ToolName


class FunctionChoice(Body):
    """Call of this function."""

    type: Literal["function"]
    function: NamedFunction


class AllowedFunctions(Body):
    mode: Literal["auto", "required"]
    tools: Annotated[list[FunctionChoice], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedChoice(Body):
    """Choice among some of the functions."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedFunctions


ObjectChoice = Annotated[FunctionChoice | AllowedChoice, Field(discriminator="type")]


def chosen(
    choice: Mode | ObjectChoice | None, tools: list[dict[str, Any]]
) -> tuple[Literal["auto", "none", "any"], list[dict[str, Any]]]:
    """Return the mode of a choice and the tools that it leaves. Raises `Invalid` for one that is not offered."""
    if isinstance(choice, FunctionChoice):
        return "any", narrowed(tools, {"/tool_choice/function/name": choice.function.name})
    if isinstance(choice, AllowedChoice):
        allowed = choice.allowed_tools
        where = "/tool_choice/allowed_tools/tools/{}/function/name"
        named = {where.format(number): one.function.name for number, one in enumerate(allowed.tools)}
        return "any" if allowed.mode == "required" else "auto", narrowed(tools, named)
    return "any" if choice == "required" else choice or "auto", tools
