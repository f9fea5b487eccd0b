"""Single pattern: one model call with the agent's prompt and the conversation."""

from __future__ import annotations

from collections.abc import Iterator

from service.agents.definitions import Finding
from service.agents.pattern import Context, Events, Prompt, answer_of
from service.agents.pattern_checks import documents_unread, tools_unused
from service.agents.spec import AgentSpec, Extent, PatternOptions
from service.knowledge import Knowledge
from service.types import Answer


class Options(PatternOptions):
    """Options of this pattern: none."""

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        return Extent(1, tokens, 0)


def run(context: Context) -> Events[Answer]:
    reply = yield from context.steps.model("answer", Prompt(context.system, context.messages))
    return answer_of(reply)


def check(spec: AgentSpec, options: Options, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Warn of tools and documents, which this pattern does not use."""
    yield from tools_unused(spec)
    yield from documents_unread(spec, knowledge)
