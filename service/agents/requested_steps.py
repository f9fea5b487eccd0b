"""Steps as code of an agent's own sees them: each is a request, made by the run, whose outcome the code gets."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from service.agents.pattern import Events, Prompt, Steps
from service.errors import RunLimit
from service.llm.client import ModelReply
from service.tools import ToolResult

MAX_NAME = 100  # characters of a step's name
MAX_CALLS = 1_000  # tool calls by name in one run
MAX_ARGUMENTS = 1_000_000  # bytes of a call's arguments, as JSON


@dataclass(frozen=True, slots=True)
class StepRequest:
    """Step that the code asks for. `publishes`: clients see the text of its reply."""

    make: Callable[[Steps], Events[Any]]
    publishes: bool = False


class RequestedSteps:
    """`service.agents.pattern.Steps` for code of an agent's own. Raises `TypeError` and `RunLimit`."""

    def __init__(self) -> None:
        self._call_ids: set[str] = set()  # of the tool calls that the model has requested
        self._calls = 0  # tool calls by name

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
        self._calls += 1
        if self._calls > MAX_CALLS:
            raise RunLimit(f"The code may call tools by name {MAX_CALLS} times in one run.")
        given = _as_json(arguments)
        result: ToolResult = yield StepRequest(lambda steps: steps.call_tool(name, tool, given))
        return result


def _check_name(name: object) -> None:
    if not (isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()):
        raise TypeError(f"a step's name is text of at most {MAX_NAME} characters")


def _as_json(arguments: Mapping[str, Any]) -> dict[str, Any]:
    written = orjson.dumps(dict(arguments))
    if len(written) > MAX_ARGUMENTS:
        raise TypeError(f"arguments of a call are JSON of at most {MAX_ARGUMENTS} bytes")
    given: dict[str, Any] = orjson.loads(written)
    return given
