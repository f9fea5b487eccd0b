"""Choice of a run's tier: by its question, or by the cheap model if in doubt."""

from __future__ import annotations

from typing import Protocol

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events, Prompt
from service.errors import ModelError
from service.llm.client import ModelReply
from service.llm.routing import CLASSIFY, CLASSIFY_TOKENS, TIER_SCHEMA, Route, excerpt, parse_tier
from service.runs.journal import Journal
from service.runs.journal_codec import encode_reply
from service.types import Run, Tier, Usage

ROUTE = "route"  # the step in which the cheap model rates a question's difficulty


class AskModel(Protocol):
    """Model step that does not count towards the step limit."""

    def __call__(self, name: str, prompt: Prompt, *, counts: bool) -> Events[ModelReply]: ...


def choose_route(
    agent: AgentDefinition, run: Run, journal: Journal, ask: AskModel, *, tools: bool
) -> Events[Route]:
    """Return the models of the run's tier, and set it. Every attempt chooses the same."""
    request, bounds, router = run.request, agent.bounds, agent.model_router
    count = len(agent.tools) if tools else 0
    tier = request.tier
    if router.unsure(tier, request.question, count, bounds):
        tier = (yield from _tier_by_model(request.question, journal, ask)) or tier
    route = router.route(tier, request.question, count, bounds)
    run.tier = route.tier
    own = (request.fork or {}).get("model")
    return route if own is None else route._replace(models=(own,))


def _tier_by_model(question: str, journal: Journal, ask: AskModel) -> Events[Tier | None]:
    """Ask the cheap model for the tier. None on failure, which is stored too: all attempts must agree."""
    prompt = Prompt(
        system=CLASSIFY,
        messages=[{"role": "user", "content": excerpt(question)}],
        tier="simple",
        max_tokens=CLASSIFY_TOKENS,
        json_schema=TIER_SCHEMA,
        publish=False,
    )
    try:
        reply = yield from ask(ROUTE, prompt, counts=False)
    except ModelError:
        journal.add_step("model", ROUTE, encode_reply(ModelReply("", [], "error", Usage())))
        return None
    return parse_tier(reply.text)
