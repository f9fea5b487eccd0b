"""Steps as code of an agent's own sees them: each is a request, made by the run, whose outcome the code gets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

from service.agents.pattern import Events, Prompt, Steps
from service.llm.client import ModelReply
from service.tools import ToolResult

MAX_NAME = 100  # characters of a step's name


@dataclass(frozen=True, slots=True)
class StepRequest:
    """Step that the code asks for. `publishes`: clients see the text of its reply."""

    make: Callable[[Steps], Events[Any]]
    publishes: bool = False


class RequestedSteps:
    """`service.agents.pattern.Steps` for code of an agent's own. Raises `TypeError` for what is no step."""

    def __init__(self) -> None:
        self._call_ids: set[str] = set()  # of the tool calls that the model has requested

    def model(self, name: str, prompt: Prompt) -> Generator[Any, Any, ModelReply]:
        _check_name(name)
        if not isinstance(prompt, Prompt):
            raise TypeError("a model step takes a Prompt")
        reply: ModelReply = yield StepRequest(lambda steps: steps.model(name, prompt), prompt.publish)
        self._call_ids |= {use["id"] for use in reply.tool_uses}
        return reply

    def tools(self, name: str, reply: ModelReply) -> Generator[Any, Any, list[ToolResult]]:
        _check_name(name)
        if not {use["id"] for use in reply.tool_uses} <= self._call_ids:
            raise TypeError("a tools step takes the reply of a model step; call_tool makes other calls")
        results: list[ToolResult] = yield StepRequest(lambda steps: steps.tools(name, reply))
        return results

    def call_tool(
        self, name: str, tool: str, arguments: Mapping[str, Any]
    ) -> Generator[Any, Any, ToolResult]:
        _check_name(name)
        result: ToolResult = yield StepRequest(lambda steps: steps.call_tool(name, tool, arguments))
        return result


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()):
        raise TypeError(f"a step's name is text of at most {MAX_NAME} characters")
