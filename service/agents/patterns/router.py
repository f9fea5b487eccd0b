"""Classify with the cheap tier, then answer from what that category's knowledge says."""

from __future__ import annotations

from typing import Any

import orjson

from service.agents.pattern import Context, Events, answer_of
from service.knowledge import Passage
from service.types import Answer, Block, Message

CLASSIFY = "classify"  # the name of that step
PASSAGES = 4  # how many passages an answer may draw on


def run(context: Context) -> Events[Answer]:
    category = yield from _classify(context)
    passages: list[Passage] = []
    if context.agent.knowledge is not None:
        passages = context.agent.knowledge.search(context.request.question, category, PASSAGES)
    messages = [*context.messages[:-1], _with_documents(context.messages[-1], passages)]
    # A block of its own: the agent's prompt before it is the same for every category, and read from the cache.
    about = f"This question is about: {category}."
    system: list[Block] = [{"type": "text", "text": context.system}, {"type": "text", "text": about}]
    reply = yield from context.steps.model("answer", system=system, messages=messages)
    answer = answer_of(reply, sources=[passage.source for passage in passages[:2]])
    return answer.with_sources(tuple(_located(source, passages) for source in answer.sources))


def _classify(context: Context) -> Events[str]:
    """The category's name; the last one listed when the model's word is not one of them."""
    categories = context.agent.categories
    lines = "\n".join(f"- {name}: {category.description}" for name, category in categories.items())
    reply = yield from context.steps.model(
        CLASSIFY,
        system=f"Classify the user's last message into exactly one of these categories:\n{lines}",
        messages=[{"role": "user", "content": context.request.question}],
        tier="simple",
        max_tokens=50,
        json_schema=_schema(list(categories)),
        tell=False,
    )
    return category_of(reply.text, list(categories))


def _schema(names: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"category": {"type": "string", "enum": names}},
        "required": ["category"],
        "additionalProperties": False,
    }


def category_of(text: str, names: list[str]) -> str:
    """What the classifying step's answer says, or the last name where it says nothing of use."""
    try:
        said = str(orjson.loads(text).get("category", ""))
    except (orjson.JSONDecodeError, AttributeError):
        said = text.strip().lower()
    return said if said in names else names[-1]


def _with_documents(message: Message, passages: list[Passage]) -> Message:
    """The user's turn with the passages before it, as documents the model can cite."""
    content = message["content"]
    blocks: list[Block] = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    documents: list[Block] = [
        {
            "type": "document",
            "source": {"type": "text", "media_type": "text/plain", "data": passage.text},
            "title": passage.title,
            "citations": {"enabled": True},
        }
        for passage in passages
    ]
    return {"role": message["role"], "content": documents + blocks}


def _located(source: dict[str, str], passages: list[Passage]) -> dict[str, str]:
    """A citation names the document's title; the uri is ours to add."""
    uri = next((p.uri for p in passages if p.title == source["title"]), source["uri"])
    return {**source, "uri": uri}
