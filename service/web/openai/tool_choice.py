"""Choice among a client's functions, in the forms that OpenAI's two APIs have for it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from pydantic import Field

from service.errors import fault
from service.web.client_conversation import MAX_TOOLS, ToolName, client_choice, client_tools, narrowed
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


class FlatFunctionChoice(Body):
    """Call of this function, as the Responses API has it."""

    type: Literal["function"]
    name: ToolName


class FlatAllowedChoice(Body):
    type: Literal["allowed_tools"]
    mode: Literal["auto", "required"]
    tools: Annotated[list[FlatFunctionChoice], Field(min_length=1, max_length=MAX_TOOLS)]


ObjectChoice = Annotated[FunctionChoice | AllowedChoice, Field(discriminator="type")]
FlatChoice = Annotated[FlatFunctionChoice | FlatAllowedChoice, Field(discriminator="type")]


def functions(
    offered: list[dict[str, Any]],
    name_at: str,
    choice: Mode | ObjectChoice | FlatChoice | None,
    called: Iterable[str],
) -> tuple[tuple[dict[str, Any], ...] | None, Literal["none", "any"] | None]:
    """Return the functions that are offered, or stubs of those `called` in the conversation, and the choice among them.

    `name_at`: pointer from a tool to its name. Raises `Invalid`.
    """
    names = [tool["name"] for tool in offered]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise fault(f"/tools/{number}/{name_at}", "two functions have the same name")
    mode, left = chosen(choice, offered)
    tools = client_tools(left, called)
    return tools, client_choice(mode, left) if tools else None


def chosen(
    choice: Mode | ObjectChoice | FlatChoice | None, tools: list[dict[str, Any]]
) -> tuple[Literal["auto", "none", "any"], list[dict[str, Any]]]:
    """Return the mode of a choice and the tools that it leaves. Raises `Invalid` for one that is not offered."""
    if isinstance(choice, FlatFunctionChoice):
        return "any", narrowed(tools, {"/tool_choice/name": choice.name})
    if isinstance(choice, FlatAllowedChoice):
        named = {f"/tool_choice/tools/{number}/name": one.name for number, one in enumerate(choice.tools)}
        return "any" if choice.mode == "required" else "auto", narrowed(tools, named)
    if isinstance(choice, FunctionChoice):
        return "any", narrowed(tools, {"/tool_choice/function/name": choice.function.name})
    if isinstance(choice, AllowedChoice):
        allowed = choice.allowed_tools
        where = "/tool_choice/allowed_tools/tools/{}/function/name"
        named = {where.format(number): one.function.name for number, one in enumerate(allowed.tools)}
        return "any" if allowed.mode == "required" else "auto", narrowed(tools, named)
    return "any" if choice == "required" else choice or "auto", tools
