"""The kept steps of a run: what a pattern's model and tool calls really do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Told
from service.errors import ModelUnavailable
from service.llm.client import ModelCall, ModelClient, ModelReply, ModelRequest
from service.llm.routing import Router
from service.runs.active import Handle
from service.runs.journal import Journal
from service.runs.toolbox import Toolbox
from service.tools import ToolResult
from service.types import Block, Event, Message, Run, Tier, ToolUse, Usage
from service.usage.prices import Price, PriceTable, today


@dataclass(frozen=True, slots=True)
class Means:
    """What a run's steps work with; one set per process."""

    client: ModelClient
    routers: Mapping[str, Router]  # by agent: each may have models of its own
    prices: PriceTable
    toolbox: Toolbox


class RunSteps:
    """`service.agents.pattern.Steps` over a journal: replayed where kept, made and kept where not."""

    def __init__(self, means: Means, agent: AgentDefinition, run: Run, journal: Journal, handle: Handle) -> None:
        self._means = means
        self._agent = agent
        self._run = run
        self._journal = journal
        self._handle = handle
        self.used: list[ToolUse] = []
        self.model_seconds = 0.0

    def model(
        self,
        name: str,
        *,
        system: str | Sequence[Block],
        messages: Sequence[Message],
        tools: bool = False,
        may_call_tools: bool = True,
        tier: Tier | None = None,
        max_tokens: int | None = None,
        json_schema: Mapping[str, Any] | None = None,
        tell: bool = True,
    ) -> Told[ModelReply]:
        """One model call, kept. Raises a `ModelError`, `BudgetExceeded`, `PriceUnknown` or why the run stops."""
        kept = self._journal.replay("model", name)
        if kept is not None:
            return _reply(kept)
        request = ModelRequest(
            model="",
            system=system,
            messages=messages,
            max_tokens=max_tokens or self._run.request.max_tokens or self._agent.max_tokens,
            tools=[tool.for_model() for tool in self._agent.tools.values()] if tools else (),
            may_call_tools=may_call_tools,
            effort=None if json_schema else self._run.request.effort or self._agent.effort,
            json_schema=json_schema,
            stream=tell and self._run.door != "invoke",
            user_id=self._run.user_id,
        )
        return (yield from self._first_that_answers(name, request, self._models(tier, len(request.tools))))

    def tools(self, name: str, uses: Sequence[Block]) -> Told[list[ToolResult]]:
        """The tool calls of one reply, kept. Raises `Suspended` when a person has to decide first."""
        kept = self._journal.replay("tools", name)
        if kept is not None:
            results = [ToolResult(**{**item, "sources": tuple(item["sources"])}) for item in kept["results"]]
        else:
            self._handle.check()
            started = {"step": self._journal.steps + 1, "name": name, "kind": "tools"}
            results = yield from self._means.toolbox.use(
                self._agent, self._run, self._journal, self._handle, started, uses
            )
            self._journal.keep("tools", name, {"results": [_json(result) for result in results]})
        for use, result in zip(uses, results, strict=True):
            self.used.append(ToolUse(use["name"], result.ok, round(result.ms)))
        return results

    def _models(self, tier: Tier | None, tools: int) -> tuple[str, ...]:
        """The models to ask, in order. The run's own tier is chosen once, from its question."""
        router = self._means.routers[self._agent.id]
        if tier is not None:
            return router.route(tier).models
        route = router.route(
            self._run.tier or self._run.request.tier, self._run.request.question, tools, self._agent.bounds
        )
        self._run.tier = route.tier
        return route.models

    def _first_that_answers(self, name: str, request: ModelRequest, models: Sequence[str]) -> Told[ModelReply]:
        """The next model is asked only while nothing was told of the last one's answer."""
        for model in models:
            told = self._run.last_seq
            try:
                return (yield from self._ask(name, replace(request, model=model)))
            except ModelUnavailable:
                if model == models[-1] or self._run.last_seq > told + 1:
                    raise
        raise AssertionError("a tier has at least one model")

    def _ask(self, name: str, request: ModelRequest) -> Told[ModelReply]:
        price = self._means.prices.price(request.model, today())
        self._handle.check()
        yield from self._journal.commit()
        step = self._journal.steps + 1
        yield from self._journal.tell(
            Event.STEP_STARTED, {"step": step, "name": name, "kind": "model", "model": request.model}
        )
        call = self._handle.call()
        reply = yield from self._hear(request, call, price)
        cost = price.cost(reply.usage)
        self._journal.keep("model", name, _kept(reply), usage=reply.usage, cost_nano=cost)
        self._journal.later(
            Event.USAGE, {"step": step, "model": reply.model, **reply.usage.public(cost)}
        )
        return reply

    def _hear(self, request: ModelRequest, call: ModelCall, price: Price) -> Told[ModelReply]:
        """The reply, told as it comes. What a call that broke off had used is the run's to pay all the same."""
        began = time.monotonic()
        answer = self._means.client.create(request, call)
        try:
            while True:
                try:
                    delta = next(answer)
                except StopIteration as done:
                    reply: ModelReply = done.value
                    return reply
                yield from self._journal.tell(Event.TEXT_DELTA, {"text": delta.text})
        except Exception:
            partial = call.partial_usage
            if partial is not None:
                self._journal.spent(partial, price.cost(partial))
            if call.aborted:
                raise self._handle.why() from None
            raise
        finally:
            answer.close()
            self.model_seconds += time.monotonic() - began


def _kept(reply: ModelReply) -> dict[str, Any]:
    return {
        "model": reply.model,
        "content": reply.content,
        "stop_reason": reply.stop_reason,
        "usage": list(reply.usage),
        "request_id": reply.request_id,
        "attempts": reply.attempts,
        "ms": round(reply.ms, 1),
    }


def _reply(kept: dict[str, Any]) -> ModelReply:
    return ModelReply(**{**kept, "usage": Usage(*kept["usage"])})


def _json(result: ToolResult) -> dict[str, Any]:
    return {
        "ok": result.ok,
        "content": result.content,
        "preview": result.preview,
        "ms": result.ms,
        "sources": list(result.sources),
    }
