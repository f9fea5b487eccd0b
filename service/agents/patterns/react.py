"""Think, use tools, look at what they said, think again, until there is an answer."""

from __future__ import annotations

from service.agents.pattern import Context, Events, answer_of, assistant_turn, tool_turn
from service.errors import RunLimit
from service.types import Answer


def run(context: Context) -> Events[Answer]:
    """Make `max_steps` model calls at most; the last one may call no more tools, so it has to answer.

    Raises `RunLimit` when it calls them all the same.
    """
    messages = list(context.messages)
    sources: list[dict[str, str]] = []
    steps = context.max_steps
    for turn in range(1, steps + 1):
        reply = yield from context.steps.model(
            f"think {turn}",
            system=context.system,
            messages=messages,
            tools=True,
            may_call_tools=turn < steps,
        )
        if not reply.tool_uses:
            return answer_of(reply, sources=sources)
        if turn == steps:
            break
        results = yield from context.steps.tools(f"act {turn}", reply)
        messages += [assistant_turn(reply), tool_turn(reply.tool_uses, results)]
        for result in results:
            sources += [source for source in result.sources if source not in sources]
    raise RunLimit(f"The model still called tools at step {steps}, the last that this run may take.")
