"""Scripts by name: a question `play: NAME` says how the model behaves."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from tests.messages_api.asked import RAW, Asked, Block, Said, call, calls, says, text_of

THOUGHT: Block = {"type": "thinking", "thinking": "Let me see.", "signature": "c2VhbGVk"}
SEARCH: Block = {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "x"}}
FOUND: Block = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
ANSWER = "The answer is 42."
HALF = '{"expression": "1 +'  # arguments that break off
_NAME = re.compile(r"\bplay: ([a-z_]+)")


def play(asked: Asked) -> Said:
    """Answer by the play that the question names; steps in between get what their form asks for."""
    if asked.schema is not None:
        return says(_filled(asked.schema))
    named = _NAME.search(asked.prompt)
    return PLAYS[named[1]](asked) if named else says(ANSWER)


def _tool(asked: Asked) -> str:
    """Return the first tool offered; a name that does not exist to an agent without tools."""
    return str((asked.body.get("tools") or [{"name": "none"}])[0]["name"])


def _arguments(asked: Asked, text: str) -> dict[str, Any]:
    """Fill the tool's required strings."""
    schema = (asked.body.get("tools") or [{"input_schema": {}}])[0]["input_schema"]
    return dict.fromkeys(schema.get("required", ()), text)


def _next(asked: Asked) -> int:
    """Return the number of the next call, also where notes stand for the earlier ones."""
    return int(asked.calls[-1]["id"].removeprefix("toolu_")) + 1 if asked.calls else 0


def _once(*content: Callable[[Asked], Block]) -> Callable[[Asked], Said]:
    """Make these calls first, then answer."""

    def script(asked: Asked) -> Said:
        return says(ANSWER) if asked.calls else calls(*(make(asked) for make in content))

    return script


def _good(number: int) -> Callable[[Asked], Block]:
    return lambda asked: call(_tool(asked), _arguments(asked, f"{number} + 1"), number)


def _raw(text: str) -> Callable[[Asked], Block]:
    return lambda asked: {**call(_tool(asked), text, 1), RAW: text}


def loop(asked: Asked) -> Said:
    """Make the same call for as long as calls are allowed."""
    if not asked.may_call and asked.body.get("tools"):
        return says(ANSWER)
    return calls(call(_tool(asked), _arguments(asked, "1 + 1"), _next(asked)))


def pair(asked: Asked) -> Said:
    """Alternate between two calls."""
    if not asked.may_call and asked.body.get("tools"):
        return says(ANSWER)
    return calls(call(_tool(asked), _arguments(asked, f"{_next(asked) % 2} + 1"), _next(asked)))


def stubborn(asked: Asked) -> Said:
    """Make the same call even where none is allowed."""
    return calls(call(_tool(asked), _arguments(asked, "1 + 1"), _next(asked)))


def endless(asked: Asked) -> Said:
    """Make another call each time, even where none is allowed."""
    return calls(call(_tool(asked), _arguments(asked, f"{_next(asked)} + 1"), _next(asked)))


def pause(asked: Asked) -> Said:
    """Pause the turn twice, with a search of the provider's own."""
    said = text_of(asked.messages[-1]["content"]) if asked.messages[-1]["role"] == "assistant" else ""
    if not said:
        return Said([THOUGHT, {"type": "text", "text": "Looking. "}, SEARCH, FOUND], "pause_turn")
    return says(ANSWER) if "Still" in said else says("Still looking. ", stop="pause_turn")


PLAYS: dict[str, Callable[[Asked], Said]] = {
    "answer": lambda asked: says(ANSWER),
    "parallel": _once(_good(1), _good(2), _good(3)),
    "thinking": _once(lambda asked: THOUGHT, _good(1)),
    "list_arguments": _once(lambda asked: call(_tool(asked), ["1 + 1"], 1)),
    "half_arguments": _once(_raw(HALF)),
    "wrong_arguments": _once(lambda asked: call(_tool(asked), {"no such": [1]}, 1)),
    "unknown_tool": _once(lambda asked: call("no such tool!", {}, 1)),
    "same_id": _once(_good(1), _good(1)),
    "loop": loop,
    "pair": pair,
    "stubborn": stubborn,
    "endless": endless,
    "pause": pause,
    "endless_pause": lambda asked: says("Hm. ", stop="pause_turn"),
    "cut": lambda asked: says("The answer be", stop="max_tokens"),
    "cut_call": lambda asked: Said([_raw(HALF)(asked)], "max_tokens"),
    "refusal": lambda asked: Said([], "refusal"),
    "late_refusal": lambda asked: says("Well, the answer ", "would be ", stop="refusal"),
    "empty": lambda asked: Said([]),
    "strange": lambda asked: says("Well.", stop="something_new"),
    "error": lambda asked: Said(status=400),
}


def _filled(schema: dict[str, Any]) -> str:
    """Write an object that fits a simple schema: the first value of each enum, and plain words."""
    return json.dumps(_value(schema))


def _value(schema: dict[str, Any]) -> Any:
    if "enum" in schema:
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            return {name: _value(part) for name, part in schema.get("properties", {}).items()}
        case "array":
            return [_value(schema["items"])] * max(1, schema.get("minItems", 1))
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
    return "words"
