"""Router pattern: classify with the cheap tier, then answer from that category's knowledge."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace
from typing import Any

import orjson
from pydantic import Field

from service.agents.definitions import Finding
from service.agents.pattern import Context, Events, Prompt, answer_of
from service.agents.pattern_checks import tools_unused
from service.agents.reading import MAX_TITLE, with_documents
from service.agents.spec import AgentSpec, Extent, Name, PatternOptions, Spec
from service.knowledge import MAX_PASSAGE, Knowledge, Passage
from service.types import Answer, Block

CLASSIFY_STEP = "classify"
CLASSIFY_TOKENS = 50
PASSAGES = 4  # passages given to the answering step


class CategorySpec(Spec):
    """Category of questions."""

    description: str = Field(
        min_length=1, description="Questions of this category, for the model that classifies"
    )


class Options(PatternOptions):
    """Categories, in the order in which the model sees them."""

    categories: dict[Name, CategorySpec] = Field(
        {}, description="Pattern `router` only: categories of questions; the last is for all the rest"
    )

    @property
    def labels(self) -> Collection[str]:
        return self.categories

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        return Extent(2, max(tokens, CLASSIFY_TOKENS), PASSAGES * (MAX_PASSAGE + MAX_TITLE))

    def parse_label(self, step: str, text: str) -> str | None:
        return _category_in(text, list(self.categories)) if step == CLASSIFY_STEP else None


def run(context: Context) -> Events[Answer]:
    category = yield from _classify(context)
    passages: list[Passage] = []
    if context.agent.knowledge is not None:
        passages = context.agent.knowledge.search(context.request.question, category, PASSAGES)
    messages = [*context.messages[:-1], with_documents(context.messages[-1], passages)]
    # A separate block: the agent's prompt before it is identical for all categories and stays cacheable.
    about = f"This question is about: {category}."
    system: list[Block] = [{"type": "text", "text": context.system}, {"type": "text", "text": about}]
    reply = yield from context.steps.model("answer", Prompt(system, messages))
    answer = answer_of(reply, sources=[passage.source for passage in passages[:2]])
    return replace(answer, sources=tuple(_located(source, passages) for source in answer.sources))


def _classify(context: Context) -> Events[str]:
    """Return the category's name; the last one listed when the model names none of them."""
    categories = context.options(Options).categories
    lines = "\n".join(f"- {name}: {category.description}" for name, category in categories.items())
    prompt = Prompt(
        system=f"Classify the user's last message into exactly one of these categories:\n{lines}",
        messages=[{"role": "user", "content": context.request.question}],
        tier="simple",
        max_tokens=CLASSIFY_TOKENS,
        json_schema=_schema(list(categories)),
        publish=False,
    )
    reply = yield from context.steps.model(CLASSIFY_STEP, prompt)
    return _category_in(reply.text, list(categories))


def _schema(names: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {"category": {"type": "string", "enum": names}},
        "required": ["category"],
        "additionalProperties": False,
    }


def _category_in(text: str, names: list[str]) -> str:
    """Parse the category in the classifier's answer; the last one listed if there is none."""
    try:
        category = str(orjson.loads(text).get("category", ""))
    except (orjson.JSONDecodeError, AttributeError):
        category = text.strip().lower()
    return category if category in names else names[-1]


def _located(source: dict[str, str], passages: list[Passage]) -> dict[str, str]:
    """Add the URI to a citation, which names only the document's title."""
    uri = next((p.uri for p in passages if p.title == source["title"]), source["uri"])
    return {**source, "uri": uri}


def check(spec: AgentSpec, options: Options, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Find too few steps or categories, and categories without documents; warn of tools and unreachable documents."""
    if spec.limits.steps < 2:
        yield Finding(("limits", "steps"), "pattern router needs at least 2: it classifies, then answers")
    if len(options.categories) < 2:
        yield Finding(("categories",), "pattern router needs at least two")
    for name in options.categories:
        if knowledge is None or name not in knowledge.categories:
            yield Finding(("categories", name), f"has no documents in knowledge/{name}/")
    yield from tools_unused(spec)
    passages = knowledge.passages if knowledge is not None else ()
    outside = [passage for passage in passages if passage.category not in options.categories]
    folders = " or ".join(f"knowledge/{name}/" for name in options.categories)
    for file in dict.fromkeys(passage.uri.partition("#")[0] for passage in outside):
        detail = f"is in no category, so no question finds it: move it to {folders}"
        yield Finding((), detail, "warning", file)
