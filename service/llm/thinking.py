"""Thinking blocks are sealed by the model that wrote them: no other model may be sent them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from service.llm.client import ModelReply
from service.types import Block, Message

THINKING = frozenset({"thinking", "redacted_thinking"})
# An answer may name its model more exactly than the request did: with a date, or as the offline model does.
_VARIANT = re.compile(r"^offline-|-20\d{6}$")


def thinkers(reply: ModelReply) -> dict[str, str]:
    """By the seal of each thinking block in a reply: the model that wrote it."""
    return {_seal(block): reply.model for block in reply.content if block["type"] in THINKING}


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
    return block.get("type") not in THINKING or _plain(wrote.get(_seal(block), "")) == _plain(model)


def _thinks(message: Message) -> bool:
    content = message["content"]
    return not isinstance(content, str) and any(block.get("type") in THINKING for block in content)


def _seal(block: Block) -> str:
    return str(block.get("signature") or block.get("data") or "")


def _plain(model: str) -> str:
    return _VARIANT.sub("", model)
