"""Thinking blocks in a history: each is signed by the model that wrote it, and only that model accepts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.llm.client import ModelReply
from service.types import Block, Message

THINKING = frozenset({"thinking", "redacted_thinking"})


def signatures(reply: ModelReply, model: str) -> dict[str, str]:
    """Map the signature (or redacted data) of each thinking block of a reply to `model`, the requested name.

    The name in the reply may differ: it may carry a date or be a gateway's own.
    """
    return {_signature(block): model for block in reply.content if block["type"] in THINKING}


def for_model(messages: Sequence[Message], model: str, models: Mapping[str, str]) -> Sequence[Message]:
    """Filter the history for `model`: drop thinking blocks of other or unknown models.

    `models` merges the results of `signatures` for its replies. A turn of thinking only is dropped.
    """
    if not any(_has_thinking(message) for message in messages):
        return messages
    filtered = []
    for message in messages:
        if _has_thinking(message):
            blocks = [block for block in message["content"] if _may_see(block, model, models)]
            message = {**message, "content": blocks}
        if message["content"]:
            filtered.append(message)
    return filtered


def _may_see(block: Block, model: str, models: Mapping[str, str]) -> bool:
    return block.get("type") not in THINKING or models.get(_signature(block)) == model


def _has_thinking(message: Message) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(block.get("type") in THINKING for block in content)


def _signature(block: Block) -> str:
    return str(block.get("signature") or block.get("data") or "")
