"""Reflection pattern: draft an answer, have the model critique it, revise it, at most `rounds` times.

Drafts and critiques are hidden. Clients get the last revision as it arrives, or the draft that its critique approves.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.agents.definitions import Finding
from service.agents.pattern import WHOLE, Context, Events, Prompt, answer_of, assistant_turn
from service.agents.pattern_checks import documents_unread, tools_unused
from service.agents.spec import AgentSpec, Extent, PatternOptions
from service.knowledge import Knowledge
from service.llm.client import ModelReply
from service.types import Answer, Message

MAX_POINTS = 10  # of one critique, in the request for a revision
CRITIQUE = (
    "Review your last answer before anyone reads it. Does it do all that was asked, within every limit and every rule"
    " you were given, and is each statement supported? Name only faults that are worth another version: one in each"
    " point, with its remedy. `good` is true if there are none."
)
REVISE = "Revise your last answer. Change only what these points ask for. Answer with the whole revised text alone."


class Options(PatternOptions):
    """Bound of this pattern."""

    rounds: int = Field(
        2, ge=1, le=5, description="Pattern `reflection` only: most revisions, each after a critique"
    )

    def extent(self, steps: int, tokens: int, own: int) -> Extent:
        return Extent(min(steps, 1 + 2 * self.rounds), max(tokens, own), 0)


class Critique(BaseModel):
    """Answer of the critique step."""

    model_config = ConfigDict(extra="forbid")

    good: bool
    points: list[str]


def run(context: Context) -> Events[Answer]:
    """Take at most `max_steps` model calls: with fewer than two left, the draft is the answer."""
    rounds = min(context.options(Options).rounds, (context.max_steps - 1) // 2)
    draft = yield from context.steps.model(
        "draft", Prompt(context.system, context.messages, publish=rounds == 0)
    )
    for number in range(1, rounds + 1):
        answer = answer_of(draft)
        points = yield from _critique(context, number, draft)
        if not points:
            return replace(answer, untold=answer.output)
        listed = "\n".join(f"- {point}" for point in points)
        messages = _continued(context, draft, f"{REVISE}\n{listed}")
        prompt = Prompt(context.system, messages, publish=number == rounds)
        draft = yield from context.steps.model(f"revise {number}", prompt)
    return answer_of(draft)


def _critique(context: Context, number: int, draft: ModelReply) -> Events[Sequence[str]]:
    """Return the points to revise; none if the draft is good, empty, or its critique cannot be read."""
    if not draft.text.strip():
        return ()
    prompt = Prompt(
        context.system,
        _continued(context, draft, CRITIQUE),
        max_tokens=context.agent.max_tokens,  # the caller's limit is for the answer
        json_schema=Critique.model_json_schema(),
        publish=False,
    )
    reply = yield from context.steps.model(f"critique {number}", prompt)
    if reply.stop_reason not in WHOLE:
        return ()
    try:
        critique = Critique.model_validate_json(reply.text)
    except ValidationError:
        return ()
    return () if critique.good else critique.points[:MAX_POINTS]


def _continued(context: Context, draft: ModelReply, request: str) -> list[Message]:
    """Continue the conversation after the draft. The beginning stays the same, so that it can be cached."""
    return [*context.messages, assistant_turn(draft), {"role": "user", "content": request}]


def check(spec: AgentSpec, options: Options, knowledge: Knowledge | None) -> Iterator[Finding]:
    """Find too few steps; warn of rounds beyond the steps, and of tools and documents, which are not used."""
    possible = (spec.limits.steps - 1) // 2
    if possible < 1:
        yield Finding(("limits", "steps"), "pattern reflection needs at least 3: draft, critique, revision")
    elif possible < options.rounds:
        detail = (
            f"{options.rounds} take {1 + 2 * options.rounds} steps, and limits.steps is {spec.limits.steps}"
        )
        yield Finding(("rounds",), detail, "warning")
    yield from tools_unused(spec)
    yield from documents_unread(spec, knowledge)
