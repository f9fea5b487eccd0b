"""Think, use tools, look at what they said, think again, until there is an answer."""

from __future__ import annotations

from service.agents.pattern import Context, Told, answer_of, assistant_turn, tool_turn
from service.types import Answer


def run(context: Context) -> Told[Answer]:
    """At most `limits.steps` model calls; the last one may call no more tools, so it has to answer."""
    messages = list(context.messages)
    sources: list[dict[str, str]] = []
    for turn in range(context.agent.limits.steps):
        last = turn == context.agent.limits.steps - 1
        reply = yield from context.steps.model(
            f"think {turn + 1}", system=context.system, messages=messages, tools=True, may_call_tools=not last
        )
        if not reply.tool_uses or last:
            break
        results = yield from context.steps.tools(f"act {turn + 1}", reply.tool_uses)
        messages += [assistant_turn(reply), tool_turn(reply.tool_uses, results)]
        for result in results:
            sources += [source for source in result.sources if source not in sources]
    return answer_of(reply, sources=sources)
