"""Ceiling of a run before it begins: the most that its model calls can cost by the limits of its agent and request.

Tokens are bounded as for holds: a byte of a prompt is a token at most. So a ceiling is far above what runs usually
cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from service.agents.definitions import AgentDefinition
from service.agents.pattern import most_steps
from service.agents.spec import Extent
from service.history import MAX_TRANSCRIPT, max_summary_tokens
from service.llm.client import MAX_TEXT, TOKEN_TEXT
from service.llm.routing import CLASSIFY_TOKENS, LONG_TEXT, TIERS
from service.runs.compaction import MAX_TRANSCRIPT as MAX_NOTED
from service.runs.compaction import max_notes
from service.runs.context_window import DEFAULT_TOKENS, LEAST_PER_BYTE
from service.runs.judge import PIECE, asked
from service.runs.judge import TOKENS as VERDICT_TOKENS
from service.runs.output_form import MAX_REPAIRED, OutputForm
from service.runs.replies import MAX_PARTS
from service.runs.turn import with_context
from service.types import RunRequest, usd
from service.usage.bounds import LARGEST_WINDOW, OUTPUT_SLACK, prompt_bound
from service.usage.prices import Price, PriceTable, today

BYTES_PER_CHARACTER = 6  # as JSON
BYTES_PER_TOKEN = 8  # of an answer that is sent again
INSTRUCTIONS = 8_000  # bytes of a pattern's own words, and of the frame around a prompt
COMPACTIONS = 2  # of one step: before its call, and once the model has refused its prompt


class PlannedCall(NamedTuple):
    """Model calls of one kind that a run may make, with the most tokens of each."""

    name: str
    models: Sequence[str]
    input_tokens: int
    max_tokens: int
    times: int = 1


@dataclass(frozen=True, slots=True)
class Ceilings:
    """Ceilings at today's prices. A call is made again up to `retries` times, and each attempt may be charged."""

    prices: PriceTable
    retries: int
    history_tokens: int

    def steps(self, agent: AgentDefinition, request: RunRequest, session_tokens: int) -> list[dict[str, Any]]:
        """List what a run may do, with the most that costs in nano-dollars. Raises `PriceUnknown`.

        `session_tokens`: of the messages of its session, by the estimate that they are stored with.
        """
        return [self._priced(call) for call in self._calls(agent, request, session_tokens)] + [
            {"name": "sub_agents", "model": None, "calls": None, "call": None, "nano": nano}
            for nano in (_extent(agent, request).nano,)
            if nano
        ]

    def _priced(self, call: PlannedCall) -> dict[str, Any]:
        """Price planned calls: each model of the tier may be tried in turn, each so often as it is retried."""
        prices = [self.prices.price(model, today()) for model in call.models]
        worst = sum(_worst_in_parts(price, call) for price in prices)
        return {
            "name": call.name,
            "model": call.models[0],
            "calls": call.times,
            "call": _worst(prices[0], call),
            "nano": call.times * (1 + self.retries) * worst,
        }

    def _calls(
        self, agent: AgentDefinition, request: RunRequest, session_tokens: int
    ) -> Iterator[PlannedCall]:
        extent, cheap = _extent(agent, request), agent.model_router.route("simple").models
        budget = agent.history_tokens or self.history_tokens
        if request.tier == "auto" and agent.tier.ask:
            yield PlannedCall("route", cheap, LONG_TEXT * BYTES_PER_CHARACTER + INSTRUCTIONS, CLASSIFY_TOKENS)
        yield from _judged(agent, request, extent, cheap)
        summary = max_summary_tokens(budget)
        if session_tokens > budget:
            yield PlannedCall("summarise", cheap, _of_text(MAX_TRANSCRIPT + 4 * summary), summary)
        history = _of_text(4 * min(session_tokens, budget)) + summary * BYTES_PER_TOKEN
        models = self.prices.models if extent.free else _models(agent, request)
        first = (
            LARGEST_WINDOW if extent.free else min(LARGEST_WINDOW, _prompt(agent, request, extent) + history)
        )
        yield PlannedCall("first_step", models, first, extent.tokens)
        later = extent.calls - 1
        if later:
            yield PlannedCall("later_step", models, _later(agent, extent, first, later), extent.tokens, later)
        if later and extent.added is None and not extent.free:
            yield PlannedCall(
                "notes",
                cheap,
                _of_text(MAX_NOTED) + INSTRUCTIONS,
                max_notes(_window(agent)),
                COMPACTIONS * later,
            )


def ceiling(steps: Sequence[Mapping[str, Any]], run_most: int | None) -> int:
    """Return the most that a run can cost in all, in nano-dollars. `run_most`: the most that any run may."""
    total: int = sum(step["nano"] for step in steps)
    return total if run_most is None else min(total, run_most)


def public(step: Mapping[str, Any]) -> dict[str, Any]:
    """Return the API's view of a step: one call without a retry, and all of its calls."""
    call = None if step["call"] is None else usd(step["call"])
    about = {name: step[name] for name in ("name", "model", "calls")}
    return {**about, "call_usd": call, "ceiling_usd": usd(step["nano"])}


def _extent(agent: AgentDefinition, request: RunRequest) -> Extent:
    """Return the extent of a run by its pattern; a structured answer may take a repair, which is a step too."""
    steps, own = most_steps(agent, request), agent.max_tokens
    extent = agent.options.extent(steps, request.max_tokens or own, own)
    repairs = OutputForm.of(agent, request) is not None
    return extent._replace(calls=min(steps, extent.calls + repairs))


def _judged(
    agent: AgentDefinition, request: RunRequest, extent: Extent, models: Sequence[str]
) -> Iterator[PlannedCall]:
    """Plan the calls of the judge of its guardrails, one for each piece of a text."""
    judge = agent.guardrails.judge
    for name, rule, size in (
        ("judge_input", judge and judge.input, len(asked(request))),
        ("judge_output", judge and judge.output, min(extent.tokens * TOKEN_TEXT, MAX_TEXT)),
    ):
        if rule:
            prompt = _of_text(min(size, PIECE) + len(rule)) + INSTRUCTIONS
            yield PlannedCall(name, models, prompt, VERDICT_TOKENS, max(1, -(-size // PIECE)))


def _models(agent: AgentDefinition, request: RunRequest) -> Sequence[str]:
    """Return the models that may answer, the first choice first: one that is away is replaced by another."""
    route = agent.model_router.route(request.tier, request.question, len(agent.tools), agent.bounds)
    return tuple(dict.fromkeys([*route.models, *(agent.model_router.route(one).models[0] for one in TIERS)]))


def _prompt(agent: AgentDefinition, request: RunRequest, extent: Extent) -> int:
    """Bound the tokens of the first prompt, without the session's history."""
    tools = [tool.for_model() for tool in agent.tools.values()]
    form = OutputForm.of(agent, request)
    schema = form.schema if form is not None else None
    own = [agent.system, agent.options.model_dump(mode="json"), schema]
    bound = prompt_bound(agent.system, with_context(request), tools, schema)
    assert bound is not None, "a question is text"
    return bound + len(orjson.dumps(own)) + _of_text(extent.added or 0) + INSTRUCTIONS


def _later(agent: AgentDefinition, extent: Extent, first: int, later: int) -> int:
    """Bound the tokens of the last prompt: earlier answers are sent again, tool results as far as the window takes."""
    answers = first + later * MAX_PARTS * extent.tokens * BYTES_PER_TOKEN + _of_text(2 * MAX_REPAIRED)
    if extent.added is not None:
        return min(LARGEST_WINDOW, answers)
    return min(LARGEST_WINDOW, max(answers, round(_window(agent) / LEAST_PER_BYTE)))


def _window(agent: AgentDefinition) -> int:
    return agent.context_tokens or DEFAULT_TOKENS


def _of_text(characters: int) -> int:
    return characters * BYTES_PER_CHARACTER


def _worst(price: Price, call: PlannedCall) -> int:
    return price.worst(call.input_tokens, call.max_tokens + OUTPUT_SLACK)


def _worst_in_parts(price: Price, call: PlannedCall) -> int:
    """Return the most that one answer costs if the model pauses it as often as it may: each part is a call.

    Each part sends the ones before it again.
    """
    again = call.max_tokens * BYTES_PER_TOKEN
    prompts = (min(LARGEST_WINDOW, call.input_tokens + part * again) for part in range(MAX_PARTS))
    return sum(_worst(price, call._replace(input_tokens=prompt)) for prompt in prompts)
