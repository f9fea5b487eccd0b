"""One call: the agent's prompt and the conversation go in, the answer comes out."""

from __future__ import annotations

from service.agents.pattern import Context, Events, answer_of
from service.types import Answer


def run(context: Context) -> Events[Answer]:
    reply = yield from context.steps.model("answer", system=context.system, messages=context.messages)
    return answer_of(reply)
