"""The kept steps of a run: what a pattern's model and tool calls really do."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events, most_steps
from service.errors import ModelError, ModelUnavailable, RunLimit
from service.llm.client import ModelClient, ModelReply, ModelRequest
from service.llm.prompt_cache import marked
from service.llm.routing import CLASSIFY, CLASSIFY_TOKENS, TIER_SCHEMA, Route, Router, excerpt, tier_said
from service.llm.thinking import for_model, thinkers
from service.runs.batch.steps import BatchSteps, WaitsForBatch, can_wait
from service.runs.billing import CallBilling, owe
from service.runs.journal import Journal
from service.runs.journal_codec import kept_reply, kept_result, reply_of, result_of
from service.runs.replies import call_ids, going_on, joined, well_formed
from service.runs.slots import Handle
from service.runs.tool_execution import ToolExecution
from service.store.batches import SENT, WAITING
from service.text.sanitise import storable
from service.tools import ToolResult
from service.types import Block, Event, Message, Run, Tier, ToolUse, Usage, less_sure
from service.usage.prices import Price, PriceTable, today
from service.usage.spending import Spending

MOST_PARTS = 8  # calls that one paused turn of the model may be continued over
ROUTE = "route"  # the step in which the cheap model says how hard a question is


@dataclass(frozen=True, slots=True)
class StepDependencies:
    """What a run's steps work with; one set per process."""

    client: ModelClient
    prices: PriceTable
    tool_execution: ToolExecution
    spending: Spending
    deferred: BatchSteps


class RunSteps:
    """`service.agents.pattern.Steps` over a journal: replayed where kept, made and kept where not."""

    def __init__(
        self, means: StepDependencies, agent: AgentDefinition, run: Run, journal: Journal, handle: Handle
    ) -> None:
        self._means = means
        self._agent = agent
        self._run = run
        self._journal = journal
        self._handle = handle
        self.used: list[ToolUse] = []
        self.model_seconds = 0.0
        self.clamped: int | None = None  # tokens of the shortest answer a cap had room for
        self._lost_settled = False
        self._calls = 0  # model calls that count as steps
        self._route: Route | None = None
        self._call_ids: set[str] = set()  # of every tool call the model has asked for
        self._wrote: dict[str, str] = {}  # by seal: the model asked for a thinking block

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
        counts: bool = True,
    ) -> Events[ModelReply]:
        """One model call, kept. Raises a `ModelError`, `BudgetExceeded`, `PriceUnknown` or why the run stops.

        `counts`: against the steps that the run may take, as all that a pattern asks does. Over them: `RunLimit`.
        """
        if counts:
            self._count()
        models = (yield from self._chosen(tools)) if tier is None else self._router.route(tier).models
        request = ModelRequest(
            model=models[0],
            system=system,
            messages=messages,
            max_tokens=max_tokens or self._run.request.max_tokens or self._agent.max_tokens,
            tools=[tool.for_model() for tool in self._agent.tools.values()] if tools else (),
            may_call_tools=may_call_tools,
            effort=None if json_schema else self._run.request.effort or self._agent.effort,
            json_schema=json_schema,
            stream=tell and self._run.mode != "wait",
            user_id=self._run.user_id,
        )
        reply = yield from self._kept_or_asked(name, request, models, tell)
        for part in range(2, MOST_PARTS + 1):
            if reply.stop_reason != "pause_turn":
                return reply
            more = replace(request, messages=going_on(messages, reply))
            rest = yield from self._kept_or_asked(f"{name}, part {part}", more, models, tell)
            reply = joined(reply, rest)
        if reply.stop_reason == "pause_turn":
            raise RunLimit(f"The model paused its answer {MOST_PARTS} times.")
        return reply

    def tools(self, name: str, reply: ModelReply) -> Events[list[ToolResult]]:
        """The tool calls of one reply, kept. Raises `Suspended` when a person has to decide first."""
        kept = self._journal.replay("tools", name)
        if kept is not None:
            results = [result_of(item) for item in kept["results"]]
        else:
            self._handle.check()
            started = {"step": self._journal.steps + 1, "name": name, "kind": "tools"}
            results = yield from self._means.tool_execution.use(
                self._agent, self._run, self._journal, self._handle, started, reply
            )
            self._journal.keep("tools", name, {"results": [kept_result(result) for result in results]})
        for use, result in zip(reply.tool_uses, results, strict=True):
            self.used.append(ToolUse(use["name"], result.ok, round(result.ms)))
        return results

    def _count(self) -> None:
        self._calls += 1
        most = most_steps(self._agent, self._run.request)
        if self._calls > most:
            raise RunLimit(f"There is no answer after {most} model calls, and the run may make no more.")

    @property
    def _router(self) -> Router:
        return self._agent.router

    def _chosen(self, tools: bool) -> Events[tuple[str, ...]]:
        """The models of the run's own tier, which is chosen once: by its question, and where that leaves doubt by
        the cheap model. The same at every attempt, before the first step that needs it is replayed."""
        if self._route is None:
            asked, bounds = self._run.request, self._agent.bounds
            count = len(self._agent.tools) if tools else 0
            tier = asked.tier
            if self._router.unsure(tier, asked.question, count, bounds):
                tier = (yield from self._tier_asked(asked.question)) or tier
            self._route = self._router.route(tier, asked.question, count, bounds)
            self._run.tier = self._route.tier
        return self._route.models

    def _tier_asked(self, question: str) -> Events[Tier | None]:
        """What the cheap model says. None where it does not, which is kept too: the steps must come out the same."""
        try:
            reply = yield from self.model(
                ROUTE,
                system=CLASSIFY,
                messages=[{"role": "user", "content": excerpt(question)}],
                tier="simple",
                max_tokens=CLASSIFY_TOKENS,
                json_schema=TIER_SCHEMA,
                tell=False,
                counts=False,
            )
        except ModelError:
            self._journal.keep("model", ROUTE, kept_reply(ModelReply("", [], "error", Usage())))
            return None
        return tier_said(reply.text)

    def _kept_or_asked(
        self, name: str, request: ModelRequest, models: Sequence[str], tell: bool
    ) -> Events[ModelReply]:
        kept = self._journal.replay("model", name)
        if kept is not None:
            if "clamped" in kept:
                self._clamp(kept.pop("clamped"))
            asked = kept.pop("asked", kept["model"])
            return self._noted(reply_of(kept), asked)
        return (yield from self._first_that_answers(name, marked(request), models, tell))

    def _noted(self, reply: ModelReply, asked: str) -> ModelReply:
        """Remember what the next steps need of a reply; `asked` is the model's name in the request."""
        self._wrote |= thinkers(reply, asked)
        self._call_ids |= call_ids(reply)
        self._run.usage_source = less_sure(self._run.usage_source, reply.usage_source)
        return reply

    def _first_that_answers(
        self, name: str, request: ModelRequest, models: Sequence[str], tell: bool
    ) -> Events[ModelReply]:
        """The next model is asked only while no word was told of the last one's answer."""
        told = self._journal.words
        for model in models:
            try:
                messages = for_model(request.messages, model, self._wrote)
                return (yield from self._ask(name, replace(request, model=model, messages=messages), tell))
            except ModelUnavailable:
                if model == models[-1] or self._journal.words > told:
                    raise
        raise AssertionError("a tier has at least one model")

    def _ask(self, name: str, request: ModelRequest, tell: bool) -> Events[ModelReply]:
        """Ask before spending: the most it can cost is held in the transaction that starts the step."""
        if can_wait(self._run, request):
            reply = yield from self._batched(name, request)
            if reply is not None:
                return reply
        payment = yield from self._payment(self._means.prices.price(request.model, today()))
        allowed, told = payment.reserve(request)
        yield from told
        step = self._journal.steps + 1
        yield from self._journal.tell(
            Event.STEP_STARTED, {"step": step, "name": name, "kind": "model", "model": request.model}
        )
        reply = yield from self._hear(allowed, payment)
        reply, cost = payment.kept(allowed, reply)
        reply = well_formed(reply, self._call_ids)
        kept = {**kept_reply(reply), "asked": request.model}
        if allowed.max_tokens < request.max_tokens:
            kept["clamped"] = self._clamp(allowed.max_tokens)
        if tell and not request.stream and reply.text:  # it came whole: who reads the run later is told it so
            self._journal.later(Event.TEXT_DELTA, {"text": reply.text})
        self._keep(step, name, reply, kept, cost)
        return self._noted(reply, request.model)

    def _payment(self, price: Price) -> Events[CallBilling]:
        self._handle.check()
        yield from self._settle_lost()
        count = self._means.client.count_tokens
        return CallBilling(self._means.spending, self._run, self._journal, self._handle, count, price)

    def _batched(self, name: str, request: ModelRequest) -> Events[ModelReply | None]:
        """The answer a batch gave to this step; None: it gave none. Raises `Parked` while there is no saying."""
        deferred, step = self._means.deferred, self._journal.steps + 1
        row = deferred.find(self._run, step)
        if row is None:
            payment = yield from self._payment(self._means.prices.price(request.model, today()).in_batch())
            put_down = deferred.put_down(self._run, step, request)
            _, told = payment.reserve(request, whole=True, along=[put_down])
            yield from told
        if row is None or row["state"] in (WAITING, SENT):
            yield from self._journal.park()
            raise WaitsForBatch
        if row["reply"] is None:
            deferred.given_up(row, self._journal)
            return None
        reply, cost = deferred.taken(row, self._journal)
        reply = well_formed(reply, self._call_ids)
        about = {"step": step, "name": name, "kind": "model", "model": request.model}
        yield from self._journal.tell(Event.STEP_STARTED, about)
        yield from self._journal.tell(Event.TEXT_DELTA, {"text": reply.text})
        self._keep(step, name, reply, {**kept_reply(reply), "asked": request.model}, cost)
        return self._noted(reply, request.model)

    def _keep(self, step: int, name: str, reply: ModelReply, kept: dict[str, Any], cost: int) -> None:
        source = reply.usage_source
        self._journal.keep("model", name, kept, usage=reply.usage, cost_nano=cost, source=source)
        used = reply.usage.public(cost, source)
        self._journal.later(Event.USAGE, {"step": step, "model": reply.model, **used})

    def _hear(self, request: ModelRequest, payment: CallBilling) -> Events[ModelReply]:
        """The reply, told as it comes. What a call that broke off had used is the run's to pay all the same."""
        began = time.monotonic()
        call = self._handle.call()
        call.pay_again = lambda: payment.again(request, call)
        call.hear = self._heard
        answer = self._means.client.create(request, call)
        try:
            while True:
                try:
                    delta = next(answer)
                except StopIteration as done:
                    reply: ModelReply = done.value
                    return reply
                yield from self._journal.tell(Event.TEXT_DELTA, {"text": storable(delta.text)})
        except Exception:
            payment.failed(request, call)
            if not call.aborted:
                raise
            raise self._handle.why() from None
        finally:
            answer.close()
            self.model_seconds += time.monotonic() - began

    def _heard(self, text: str) -> None:
        """By whoever reads in this thread's place: it is told at once, and not given to the one who drives the run."""
        self._journal.tell(Event.TEXT_DELTA, {"text": storable(text)})

    def _settle_lost(self) -> Events[None]:
        """Pay, at their worst, for calls of earlier attempts whose workers died: nobody knows what came of them.

        Each in a transaction of its own, which locks the counters of one hold.
        """
        if self._run.attempt > 1 and not self._lost_settled:
            for settlement in self._means.spending.left_open(self._run):
                owe(self._journal, settlement)
                yield from self._journal.commit()
        self._lost_settled = True

    def _clamp(self, tokens: int) -> int:
        self.clamped = min(tokens, self.clamped or tokens)
        return tokens
