from __future__ import annotations

from typing import Any

from service.llm.client import ModelReply
from service.llm.thinking import for_model, signatures
from service.types import Block, Message, Usage

USE: Block = {"type": "tool_use", "id": "toolu_1", "name": "search", "input": {}}
QUESTION: Message = {"role": "user", "content": "Which?"}
RESULT: Message = {
    "role": "user",
    "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "x"}],
}


def thought(seal: str) -> Block:
    return {"type": "thinking", "thinking": "Hm.", "signature": seal}


def a_reply(*content: Block) -> ModelReply:
    return ModelReply("a-gateway/sonnet@20260928", list(content), "tool_use", Usage())


def history(*blocks: Block) -> list[Message]:
    return [QUESTION, {"role": "assistant", "content": [*blocks]}, RESULT]


def test_a_model_gets_its_own_thinking_back() -> None:
    wrote = signatures(a_reply(thought("a"), USE), "claude-sonnet-5-5")
    messages = history(thought("a"), USE)
    assert list(for_model(messages, "claude-sonnet-5-5", wrote)) == messages


def test_another_model_gets_everything_else() -> None:
    sealed: dict[str, Any] = {"type": "redacted_thinking", "data": "b"}
    wrote = signatures(a_reply(thought("a"), sealed, USE), "claude-sonnet-5-5")
    assert wrote == {"a": "claude-sonnet-5-5", "b": "claude-sonnet-5-5"}
    messages = history(thought("a"), sealed, USE)
    assert list(for_model(messages, "claude-haiku-5-5", wrote)) == history(USE)
    assert messages == history(thought("a"), sealed, USE)  # nothing is changed in place


def test_thinking_of_an_unknown_model_is_not_sent() -> None:
    assert list(for_model(history(thought("a"), USE), "claude-sonnet-5-5", {})) == history(USE)


def test_a_turn_that_was_thinking_only_is_left_out() -> None:
    assert list(for_model(history(thought("a")), "claude-opus-5-5", {})) == [QUESTION, RESULT]


def test_history_without_thinking_is_the_very_same() -> None:
    messages = history(USE)
    assert for_model(messages, "claude-haiku-5-5", {}) is messages
