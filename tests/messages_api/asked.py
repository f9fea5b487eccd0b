"""Request of the Messages API as a script sees it, and the answer that a script gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Block = dict[str, Any]
CHARACTERS_PER_TOKEN = 4
RAW = "_raw"  # in a tool call: the text to send in place of its `input`


@dataclass(frozen=True)
class Said:
    """Answer to one request. `status`: an error instead, with words that nobody else should see."""

    content: list[Block] = field(default_factory=list)
    stop: str = "end_turn"
    status: int = 200
    message: str = "UPSTREAM WORDS"


@dataclass(frozen=True)
class Asked:
    """One request."""

    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages

    @property
    def system(self) -> str:
        return text_of(self.body.get("system") or "")

    @property
    def prompt(self) -> str:
        """Text of the last user message that is no tool result."""
        return text_of(self.messages[self._question]["content"])

    @property
    def calls(self) -> list[Block]:
        """Tool calls since the question."""
        return [block for block in self._since() if block["type"] == "tool_use"]

    @property
    def results(self) -> list[str]:
        """Texts of the tool results since the question."""
        return [text_of(block["content"]) for block in self._since() if block["type"] == "tool_result"]

    @property
    def may_call(self) -> bool:
        return bool(self.body.get("tools")) and self.body.get("tool_choice", {}).get("type") != "none"

    @property
    def schema(self) -> dict[str, Any] | None:
        form = self.body.get("output_config", {}).get("format")
        return form["schema"] if form else None

    @property
    def tokens(self) -> int:
        sent = [self.body.get(name) for name in ("system", "messages", "tools")]
        return len(json.dumps(sent, ensure_ascii=False)) // CHARACTERS_PER_TOKEN + 1

    @property
    def _question(self) -> int:
        asks = [
            at
            for at, one in enumerate(self.messages)
            if one["role"] == "user" and "tool_result" not in kinds(one)
        ]
        return asks[-1]

    def _since(self) -> list[Block]:
        return [block for message in self.messages[self._question + 1 :] for block in blocks(message)]


Script = Callable[[Asked], Said]


def blocks(message: dict[str, Any]) -> list[Block]:
    content = message["content"]
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def kinds(message: dict[str, Any]) -> set[str]:
    return {block["type"] for block in blocks(message)}


def text_of(content: Any) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if block["type"] == "text")


def says(*texts: str, stop: str = "end_turn") -> Said:
    return Said([{"type": "text", "text": text} for text in texts], stop)


def call(name: str, arguments: Any, number: int = 0) -> Block:
    return {"type": "tool_use", "id": f"toolu_{number:04d}", "name": name, "input": arguments}


def calls(*content: Block) -> Said:
    return Said(list(content), "tool_use")
