"""Resources of both clients: each method is written once, as the call that it makes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Literal, TypedDict, Unpack

from slipway_client.account_models import Budget, UsageLine
from slipway_client.calls import Call, Page, get, nothing, page_of, path_of, post, present
from slipway_client.effects import Flow
from slipway_client.endpoint import AsyncResource, Resource, SyncResource, endpoint, flow, listing, streaming
from slipway_client.errors import BadArgument
from slipway_client.following import Place
from slipway_client.models import Agent, Approval, Feedback, Queued, Run, RunItem, RunResult, Status

Question = str | Sequence[Mapping[str, Any]]
WAIT = 3600.0  # seconds


class RunOptions(TypedDict, total=False):
    """Options of a run; docs/client.md explains them. Those that are None are not sent."""

    session_id: str | None
    parent_message_id: str | None
    on_conflict: Literal["reject", "queue", "interrupt"] | None
    context: Mapping[str, Any] | None
    max_tokens: int | None
    max_steps: int | None
    effort: str | None
    tier: Literal["auto", "simple", "medium", "complex"]
    cache: Literal["default", "bypass", "refresh"]
    on_disconnect: Literal["continue", "cancel"]
    on_cap: Literal["fail", "pause"]
    output_schema: Mapping[str, Any] | None
    end_user: str | None
    metadata: Mapping[str, Any] | None
    idempotency_key: str | None  # None: one of its own


class TaskOptions(RunOptions, total=False):
    """Options of a queued run."""

    callback_url: str | None
    priority: Literal["high", "normal", "batch"]


def _body_of(question: Question, options: Mapping[str, Any]) -> dict[str, Any]:
    asked = {"input": question} if isinstance(question, str) else {"messages": list(question)}
    return {
        **asked,
        **present(**{name: value for name, value in options.items() if name != "idempotency_key"}),
    }


class _Agents(Resource):
    @listing
    def list(self) -> Call[Page[Agent]]:
        """Iterate over the agents that the caller may use."""
        return get("/v1/agents", page_of(Agent.parse))

    @endpoint
    def get(self, agent: str) -> Call[Agent]:
        """Return one agent."""
        return get(path_of("agents", agent), Agent.parse)

    @endpoint
    def invoke(self, agent: str, input: Question, **options: Unpack[RunOptions]) -> Call[RunResult]:
        """Ask and wait for the result. A failed run raises the `APIError` of its failure.

        `input` is the question, or a conversation: `[{"role": "user", "content": "…"}, …]`.
        """
        body = _body_of(input, options)
        path = path_of("agents", agent, "invoke")
        return post(path, RunResult.parse, body, options.get("idempotency_key"), slow=True)

    @streaming
    def stream(self, agent: str, input: Question, **options: Unpack[RunOptions]) -> Place:
        """Ask and iterate over the run's events as they happen, to the last one, across broken connections."""
        body = _body_of(input, options)
        path = path_of("agents", agent, "stream")  # slow: a turn of a busy session may wait before it begins
        return Place(post(path, nothing, body, options.get("idempotency_key"), slow=True))


class Agents(_Agents, SyncResource): ...


class AsyncAgents(_Agents, AsyncResource): ...


class _Tasks(Resource):
    @endpoint
    def create(self, agent: str, input: Question, **options: Unpack[TaskOptions]) -> Call[Queued]:
        """Queue a run; it goes on without this client."""
        body = _body_of(input, options)
        return post(path_of("agents", agent, "tasks"), Queued.parse, body, options.get("idempotency_key"))

    @flow
    def wait(self, task: Queued | str, timeout: float = WAIT) -> Flow[Run]:
        """Wait for the end of a run, also of a failed one: see `raise_for_error`. Raises `WaitTimedOut`."""
        run_id = task if isinstance(task, str) else task.run_id
        return self._driver.exchange.ended(get(path_of("runs", run_id), Run.parse), timeout)


class Tasks(_Tasks, SyncResource): ...


class AsyncTasks(_Tasks, AsyncResource): ...


class _Runs(Resource):
    @listing
    def list(
        self,
        *,
        status: Status | None = None,
        agent: str | None = None,
        session_id: str | None = None,
        schedule: str | None = None,
    ) -> Call[Page[RunItem]]:
        """Iterate over runs, newest first."""
        filters = {"status": status, "agent": agent, "session_id": session_id, "schedule": schedule}
        return get("/v1/runs", page_of(RunItem.parse), limit=100, **filters)

    @endpoint
    def get(self, run_id: str) -> Call[Run]:
        """Return one run with its result so far and its steps."""
        return get(path_of("runs", run_id), Run.parse)

    @streaming
    def events(self, run_id: str, after: str | None = None) -> Place:
        """Iterate over the events of a run, from its start or after an event's `id`, to its last one."""
        path_of(run_id)
        of, _, number = (after or f"{run_id}:0").rpartition(":")
        if of != run_id or not (number.isascii() and number.isdecimal()):
            raise BadArgument(f"{after!r} is no event of the run {run_id}.")
        return Place(get(path_of("runs", run_id, "events"), nothing), run_id, int(number))

    @endpoint
    def cancel(self, run_id: str) -> Call[Queued]:
        """Cancel a run; what it used is billed."""
        return post(path_of("runs", run_id, "cancel"), Queued.parse, None)

    @endpoint
    def fork(
        self,
        run_id: str,
        from_step: int,
        *,
        prompt: str | None = None,
        model: str | None = None,
        idempotency_key: str | None = None,
    ) -> Call[Queued]:
        """Queue a run again from one of its steps, its tools answered from the record; `tasks.wait` waits for it.

        For operators: `prompt` replaces the agent's own, `model` the models of its tiers.
        """
        body = present(from_step=from_step, prompt=prompt, model=model)
        return post(path_of("runs", run_id, "fork"), Queued.parse, body, idempotency_key)

    @endpoint
    def feedback(self, run_id: str, score: Literal[-1, 0, 1], comment: str | None = None) -> Call[Feedback]:
        """Give feedback on one's own run; it replaces an earlier one."""
        body = present(score=score, comment=comment)
        return post(path_of("runs", run_id, "feedback"), Feedback.parse, body)


class Runs(_Runs, SyncResource): ...


class AsyncRuns(_Runs, AsyncResource): ...


class _Approvals(Resource):
    @listing
    def list(
        self, status: Literal["pending", "approved", "denied", "cancelled"] | None = None
    ) -> Call[Page[Approval]]:
        """Iterate over approvals, newest first."""
        return get("/v1/approvals", page_of(Approval.parse), limit=100, status=status)

    @endpoint
    def approve(
        self,
        approval_id: str,
        *,
        comment: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        digest: str | None = None,
    ) -> Call[Approval]:
        """Approve a tool call, with other `arguments` if any are given.

        `digest`: of the call that was looked at; another one is refused with `digest_mismatch`.
        """
        body = present(decision="approve", comment=comment, arguments=arguments, digest=digest)
        return post(path_of("approvals", approval_id), Approval.parse, body)

    @endpoint
    def deny(self, approval_id: str, *, comment: str | None = None) -> Call[Approval]:
        """Deny a tool call; the model sees the comment."""
        body = present(decision="deny", comment=comment)
        return post(path_of("approvals", approval_id), Approval.parse, body)


class Approvals(_Approvals, SyncResource): ...


class AsyncApprovals(_Approvals, AsyncResource): ...


class _Usage(Resource):
    @listing
    def report(
        self,
        *group_by: Literal["hour", "day", "agent", "model", "user", "key", "end_user", "workspace"],
        since: date | datetime | None = None,
        until: date | datetime | None = None,
    ) -> Call[Page[UsageLine]]:
        """Iterate over sums by group, by day without any; a date `until` is inclusive, a time exclusive."""
        span = {"from": _moment(since), "to": _moment(until)}
        return get("/v1/usage", page_of(UsageLine.parse), group_by=",".join(group_by or ("day",)), **span)

    @listing
    def budget(self) -> Call[Page[Budget]]:
        """Iterate over the caps that apply to the caller: spent, reserved and left."""
        return get("/v1/budget", page_of(Budget.parse))


class Usage(_Usage, SyncResource): ...


class AsyncUsage(_Usage, AsyncResource): ...


def _moment(moment: date | datetime | None) -> str | None:
    """Format a date, or a time with its zone. Raises `BadArgument` for a time without one."""
    if isinstance(moment, datetime) and moment.tzinfo is None:
        raise BadArgument("A time needs a time zone.")
    return None if moment is None else moment.isoformat()
