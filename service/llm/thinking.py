"""Thinking blocks are sealed by the model that wrote them: no other model may be sent them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.llm.client import ModelReply
from service.types import Block, Message

THINKING = frozenset({"thinking", "redacted_thinking"})


def thinkers(reply: ModelReply, model: str) -> dict[str, str]:
    """Map the seal of each thinking block of a reply to `model`, the name under which it was asked for.

    The name in the reply may be another: with a date, or as a gateway calls it.
    """
    return {_seal(block): model for block in reply.content if block["type"] in THINKING}


def for_model(messages: Sequence[Message], model: str, wrote: Mapping[str, str]) -> Sequence[Message]:
    """History as `model` may be sent it: without the thinking of others, and of nobody knows whom.

    `wrote` is what `thinkers` said of the replies in it. A turn that was thinking only is left out.
    """
    if not any(_thinks(message) for message in messages):
        return messages
    kept = []
    for message in messages:
        if _thinks(message):
            blocks = [block for block in message["content"] if _may_see(block, model, wrote)]
            message = {**message, "content": blocks}
        if message["content"]:
            kept.append(message)
    return kept


def _may_see(block: Block, model: str, wrote: Mapping[str, str]) -> bool:
    return block.get("type") not in THINKING or wrote.get(_seal(block)) == model


def _thinks(message: Message) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(block.get("type") in THINKING for block in content)


def _seal(block: Block) -> str:
    return str(block.get("signature") or block.get("data") or "")
