"""Steps of a run, stored in its journal: the model and tool calls that a pattern asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from service.agents.definitions import AgentDefinition
from service.agents.pattern import Events, Prompt, most_steps
from service.agents.remote_spec import RemoteSpec
from service.errors import GuardrailRefused, ModelUnavailable, PromptTooLong, RunLimit, guardrail_refused
from service.llm.client import ModelClient, ModelReply, ModelRequest
from service.llm.prompt_cache import marked
from service.llm.routing import Route
from service.llm.thinking import for_model, signatures
from service.observe.observer import Observer
from service.runs.attempt import Attempt
from service.runs.batch.steps import BatchSteps, WaitsForBatch, can_wait
from service.runs.billing import CallBilling
from service.runs.client_tools import CallsClient, calls_of, earlier_calls, models_for, offered, without
from service.runs.context_window import TOO_LONG, ContextWindow
from service.runs.direct_call import direct_call
from service.runs.event_log import NewEvent
from service.runs.guardrail_events import flag_results, tell_prompt
from service.runs.incoming_reply import receive
from service.runs.journal_codec import decode_reply, decode_result, encode_reply, encode_result
from service.runs.remote_step import RemoteDependencies, RemoteStep
from service.runs.replies import MAX_PARTS, call_ids, going_on, joined, well_formed
from service.runs.run_documents import RunDocuments
from service.runs.step_spans import in_model_step, in_tool_step
from service.runs.tier_choice import choose_route
from service.runs.tool_execution import ToolExecution
from service.runs.untrusted import add_results, hosts_of
from service.store.batches import SENT, WAITING
from service.tools import ToolResult
from service.types import Answer, Event, Message, Usage, less_sure
from service.usage.prices import Price, PriceTable, today
from service.usage.reservation import Spending

REFUSED = "guardrail_refused"  # stop reason of a stored step without its text, and the field with its kind


@dataclass(frozen=True, slots=True)
class StepDependencies:
    """Dependencies of the steps of all runs; one set per process."""

    client: ModelClient
    prices: PriceTable
    tool_execution: ToolExecution
    spending: Spending
    batch_steps: BatchSteps
    observer: Observer
    remote: RemoteDependencies
    documents: RunDocuments


class RunSteps:
    """`service.agents.pattern.Steps` over a journal: replay stored steps, make and store new ones."""

    def __init__(self, dependencies: StepDependencies, agent: AgentDefinition, attempt: Attempt) -> None:
        self._deps = dependencies
        self._agent = agent
        self._attempt = attempt
        self._run = attempt.run
        self._journal = attempt.journal
        self._calls = 0  # model calls that count as steps
        self._route: Route | None = None
        # Of every tool call that was requested in this run, replayed or not: claims and approvals are found by them.
        self._call_ids = self._journal.stored_call_ids() | earlier_calls(self._run.request)
        self._window = ContextWindow(agent.context_tokens, self.model)
        self._signatures: dict[str, str] = {}  # by a thinking block's signature: the model that wrote it

    def model(self, name: str, prompt: Prompt, *, counts: bool = True) -> Events[ModelReply]:
        """Call the model, store its reply. Raises `ModelError`, `BudgetExceeded`, `PriceUnknown` or the stop reason.

        `counts`: count towards the run's step limit; beyond it, `RunLimit` is raised.
        """
        if counts:
            self._count()
        if self._attempt.form is not None:
            prompt = self._attempt.form.asked(prompt)
        routed = None if prompt.tier is None else self._agent.model_router.route(prompt.tier).models
        models = routed or (yield from self._routed_models(prompt.tools))
        reply = yield from self._whole_reply(name, self._request(models[0], prompt), models, prompt.publish)
        calls = calls_of(reply, self._run.request)
        if calls and len(calls) == len(reply.tool_uses):
            raise CallsClient(reply, calls)
        return reply

    def _request(self, model: str, prompt: Prompt) -> ModelRequest:
        options, agent = self._run.request, self._agent
        return ModelRequest(
            model=model,
            system=prompt.system,
            messages=prompt.messages,
            max_tokens=prompt.max_tokens or options.max_tokens or agent.max_tokens,
            **offered(options, prompt, [tool.for_model() for tool in agent.tools.values()])._asdict(),
            effort=options.effort or agent.effort if prompt.publish or not prompt.json_schema else None,
            json_schema=prompt.json_schema,
            stream=prompt.publish and self._run.mode != "wait",
            stop_sequences=options.stop_sequences or () if prompt.publish else (),
            user_id=self._run.user_id,
        )

    def _whole_reply(
        self, name: str, request: ModelRequest, models: Sequence[str], publish: bool
    ) -> Events[ModelReply]:
        """Call again while the model pauses its turn, and join the parts. Raises `RunLimit` after `MAX_PARTS`."""
        call = partial(self._replayed_or_called, name, models=models, publish=publish)
        request, reply = yield from self._window.ask(request, call)
        for part in range(2, MAX_PARTS + 1):
            if reply.stop_reason != "pause_turn":
                return reply
            more = replace(request, messages=going_on(request.messages, reply))
            rest = yield from self._replayed_or_called(f"{name}, part {part}", more, models, publish)
            reply = joined(reply, rest)
        if reply.stop_reason == "pause_turn":
            raise RunLimit(f"The model paused its answer {MAX_PARTS} times.")
        return reply

    def tools(self, name: str, reply: ModelReply) -> Events[list[ToolResult]]:
        """Make the tool calls of a reply, store their results. Raises `WaitsForApproval`; after them, `CallsClient`."""
        reply = self._attempt.rails.answered(reply)  # a pattern made it of what a model said
        calls = calls_of(reply, self._run.request)
        whole, reply = reply, without(reply, calls)
        stored = self._journal.replay("tools", name)
        if stored is not None:
            results = [decode_result(item) for item in stored["results"]]
        else:
            self._attempt.handle.check()
            started = {"step": self._journal.steps + 1, "name": name, "kind": "tools"}
            made = self._deps.tool_execution.use(self._agent, self._attempt, started, reply)
            results = yield from in_tool_step(started, self._attempt, reply, made)
            self._journal.add_step("tools", name, {"results": [encode_result(result) for result in results]})
            self._deps.observer.step(self._run, "tools", name)
        for use, result in zip(reply.tool_uses, results, strict=True):
            self._attempt.add_use(use, result)
        results = add_results(self._attempt.taint, self._agent, reply, results)
        if stored is None:
            flag_results(self._attempt, self._deps.observer, reply, results)
        if calls:
            raise CallsClient(whole, calls)
        return results

    def call_tool(self, name: str, tool: str, arguments: Mapping[str, Any]) -> Events[ToolResult]:
        """Call one tool by name, as a step. Raises `AgentFault` where another call may have been made in its place."""
        reply = direct_call(self._attempt, self._deps.tool_execution, name, tool, arguments)
        return (yield from self.tools(name, reply))[0]

    def remote(self, name: str, where: RemoteSpec, messages: Sequence[Message]) -> Events[Answer]:
        step = RemoteStep(self._deps.remote, self._agent, self._attempt, publish=True)
        return (yield from step.ask(name, where, messages))

    def seconds_left(self) -> float:
        return self._attempt.handle.seconds_left()

    def _count(self) -> None:
        self._calls += 1
        if self._calls > (most := most_steps(self._agent, self._run.request)):
            raise RunLimit(f"There is no answer after {most} model calls, and the run may make no more.")

    def _routed_models(self, tools: bool) -> Events[tuple[str, ...]]:
        """Return the models of the run's tier, chosen once, before the first step that needs it."""
        if self._route is None:
            self._route = yield from choose_route(
                self._agent, self._run, self._journal, self.model, tools=tools
            )
        return models_for(self._run.request, self._route.models)

    def _replayed_or_called(
        self, name: str, request: ModelRequest, models: Sequence[str], publish: bool
    ) -> Events[ModelReply]:
        stored = self._journal.replay("model", name)
        request = self._attempt.rails.asked(request, of_caller=self._agent.is_model, again=stored is not None)
        if stored is not None:
            if REFUSED in stored:
                raise guardrail_refused("output", stored[REFUSED])
            if "clamped" in stored:
                self._note_clamped(stored.pop("clamped"))
            if stored["stop_reason"] == TOO_LONG:
                raise PromptTooLong
            requested = stored.pop("asked", stored["model"])
            return self._noted(decode_reply(stored), requested)
        try:
            return (yield from self._call_with_fallback(name, marked(request), models, publish))
        except PromptTooLong:  # kept: every attempt has to compact at the same place
            self._journal.add_step("model", name, encode_reply(ModelReply("", [], TOO_LONG, Usage())))
            raise

    def _well_formed(self, reply: ModelReply) -> ModelReply:
        return well_formed(reply, self._call_ids)

    def _noted(self, reply: ModelReply, requested: str) -> ModelReply:
        """Record the parts of a reply that later steps need; `requested` is the model's name in the request."""
        self._signatures |= signatures(reply, requested)
        self._call_ids |= call_ids(reply)
        self._attempt.taint.add_reply(reply.content)
        self._run.usage_source = less_sure(self._run.usage_source, reply.usage_source)
        return reply

    def _call_with_fallback(
        self, name: str, request: ModelRequest, models: Sequence[str], publish: bool
    ) -> Events[ModelReply]:
        """Call the first available model; no fallback once clients were sent text of the one before."""
        deltas = self._attempt.text.deltas
        for model in models:
            try:
                thinking = {} if request.must_call_tool else self._signatures
                changed = replace(request, model=model, messages=for_model(request.messages, model, thinking))
                made, started = self._call(name, changed, publish), self._started(name, changed)[1]
                return (yield from in_model_step(started, self._attempt, changed, made))
            except ModelUnavailable:
                if model == models[-1] or self._attempt.text.deltas > deltas:
                    raise
        raise AssertionError("a tier has at least one model")

    def _call(self, name: str, request: ModelRequest, publish: bool) -> Events[ModelReply]:
        """Call a model: its hold is written with the start of the step, its settlement with the reply."""
        hosts = hosts_of(self._attempt.taint, self._agent, request) if publish else None
        self._attempt.text.begin(hosts, self._agent.marker, told=publish)
        if can_wait(self._run, request):
            reply = yield from self._batched(name, request)
            if reply is not None:
                return reply
        billing = self._billing(self._deps.prices.price(request.model, today()))
        granted, events = billing.reserve(request, then=[self._started(name, request)])
        yield from events
        reply = yield from receive(self._deps.client, self._attempt, granted, billing)
        yield from self._attempt.text.end()
        reply, cost = billing.settle(granted, reply)
        reply, refused = self._cleaned(reply)
        stored = {**encode_reply(reply), "asked": request.model, **refused}
        if granted.max_tokens < request.max_tokens:
            stored["clamped"] = self._note_clamped(granted.max_tokens)
        if publish and not request.stream and reply.text:
            self._attempt.text.write_after_commit(reply.text)
        self._store(name, reply, stored, cost)
        return self._noted(reply, request.model)

    def _cleaned(self, reply: ModelReply) -> tuple[ModelReply, dict[str, Any]]:
        """Return a reply as clients may see it, its calls with true values; and fields to store with it.

        A refused reply is stored without its content: it is paid for, and every attempt ends there.
        """
        reply = self._attempt.rails.answered(self._well_formed(reply))
        try:
            reply = self._attempt.text.cleaned(reply, self._journal.steps + 1)
        except GuardrailRefused as error:
            return replace(reply, content=[], stop_reason=REFUSED), {REFUSED: error.extra["kind"]}
        tell_prompt(self._attempt, self._deps.observer, reply, self._agent.marker)
        return reply, {}

    def _started(self, name: str, request: ModelRequest) -> NewEvent:
        step = self._journal.steps + 1
        return Event.STEP_STARTED, {"step": step, "name": name, "kind": "model", "model": request.model}

    def _billing(self, price: Price) -> CallBilling:
        self._attempt.handle.check()
        return CallBilling(self._deps.spending, self._attempt, self._deps.client.count_tokens, price)

    def _batched(self, name: str, request: ModelRequest) -> Events[ModelReply | None]:
        """Return a batch's reply to this step; None: it gave none. Raises `WaitsForBatch` until it has ended."""
        batch_steps, step = self._deps.batch_steps, self._journal.steps + 1
        row = batch_steps.find(self._run, step)
        if row is None:
            billing = self._billing(self._deps.prices.price(request.model, today()).in_batch())
            added = batch_steps.add(self._run, step, request)
            _, events = billing.reserve(request, whole=True, along=[added])
            yield from events
        if row is None or row["state"] in (WAITING, SENT):
            yield from self._journal.park()
            raise WaitsForBatch
        if row["reply"] is None:
            batch_steps.give_up(row, self._journal)
            return None
        reply, cost = batch_steps.take(row, self._journal)
        reply, refused = self._cleaned(reply)
        yield from self._journal.publish(*self._started(name, request))
        if reply.text and not self._attempt.text.held:
            yield from self._attempt.text.tell(reply.text)
        self._store(name, reply, {**encode_reply(reply), "asked": request.model, **refused}, cost)
        return self._noted(reply, request.model)

    def _store(self, name: str, reply: ModelReply, stored: dict[str, Any], cost: int) -> None:
        usage, source = reply.usage, reply.usage_source
        self._journal.add_step("model", name, stored, usage=usage, cost_nano=cost, source=source)
        self._deps.observer.step(self._run, "model", name)
        self._deps.observer.context(self._agent.id, stored["asked"], self._window.share(usage))
        used = {"step": self._journal.steps, "model": reply.model, **usage.public(cost, source)}
        self._journal.publish_after_commit(Event.USAGE, used)
        if REFUSED in stored:
            raise guardrail_refused("output", stored[REFUSED])

    def _note_clamped(self, tokens: int) -> int:
        self._attempt.clamped = min(tokens, self._attempt.clamped or tokens)
        return tokens
