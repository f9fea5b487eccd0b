"""ReAct pattern: call the model, run the tools it asks for, return their results, until it answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from service.agents.definitions import Finding
from service.agents.pattern import Context, Events, Prompt, answer_of, assistant_turn, tool_turn
from service.agents.pattern_checks import search_mismatch
from service.agents.repetition import TIMES, LoopDetector, with_notice
from service.agents.spec import AgentSpec, Extent, PatternOptions
from service.errors import RunLimit
from service.knowledge import Knowledge
from service.types import Answer


class Options(PatternOptions):
    """Options of this pattern: none."""

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        return Extent(steps, tokens)


def run(context: Context) -> Events[Answer]:
    """Make at most `max_steps` model calls; the last may not call tools, so it has to answer.

    A loop of equal calls and results ends earlier: the model is told, and has to answer. Raises `RunLimit` when the
    model calls tools nevertheless.
    """
    messages = list(context.messages)
    sources: list[dict[str, str]] = []
    repeated: tuple[str, ...] = ()
    steps, loop = context.max_steps, LoopDetector()
    for turn in range(1, steps + 1):
        is_last = turn == steps or bool(repeated)
        prompt = Prompt(context.system, messages, tools=True, may_call_tools=not is_last)
        reply = yield from context.steps.model(f"think {turn}", prompt)
        if not reply.tool_uses:
            return replace(answer_of(reply, sources=sources), repeated_calls=repeated)
        if is_last:
            break
        results = yield from context.steps.tools(f"act {turn}", reply)
        repeated = loop.add(reply.tool_uses, results)
        told = tool_turn(reply.tool_uses, results)
        messages += [assistant_turn(reply), with_notice(told, repeated) if repeated else told]
        for result in results:
            sources += [source for source in result.sources if source not in sources]
    if repeated:
        raise RunLimit(f"The model made the same tool calls {TIMES} times in a row, and then gave no answer.")
    raise RunLimit(f"The model still called tools at step {steps}, the last that this run may take.")


def check(spec: AgentSpec, options: Options, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Warn of an agent without tools, of documents that no tool reads, and of a search without documents."""
    if not spec.tools:
        detail = "react without tools: list some under `tools`, or use single"
        yield Finding(("pattern",), detail, "warning")
    yield from search_mismatch(spec, knowledge)
