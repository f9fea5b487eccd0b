"""Build the run services: start, execution, steps, batches, queries and cancellation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from service.agents.catalog import AgentCatalog
from service.audit.record import Refusals
from service.auth.revocation import Revocations
from service.auth.run_tokens import RunTokens
from service.cache.build import build as build_cache
from service.cache.build import relayed_answers
from service.embeddings import Embeddings
from service.ids import new_id
from service.infra.backends import Infra
from service.infra.redis_client import connect
from service.knowledge.build import KnowledgeServices
from service.llm.build import ModelClients
from service.runs.batch.steps import BatchSteps
from service.runs.batch.submitter import BatchSubmitter
from service.runs.budget_waits import BudgetWaits
from service.runs.build_runner import build_runner
from service.runs.bulkhead import Bulkhead
from service.runs.bytes_in_flight import BytesInFlight
from service.runs.cancel import Cancellation
from service.runs.ceiling import Ceilings
from service.runs.client_tools import Continuations
from service.runs.conflicts import Conflicts
from service.runs.deletion import Deletion
from service.runs.estimates import Estimates
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.publisher import Publisher
from service.runs.execution import Execution
from service.runs.forks import Forks
from service.runs.gateway_calls import GatewayCalls
from service.runs.new_run import NewRuns
from service.runs.queries import RunQueries
from service.runs.queue_bounds import QueueBounds
from service.runs.recovery.supervisor import Chore, ProcessRole, Supervisor, Times, Wakeup
from service.runs.relay_start import RelayStarter
from service.runs.runner import Runner
from service.runs.slots import Slots
from service.runs.start import RunStarter
from service.runs.stops import AgentStops
from service.runs.token_counts import TokenCounts
from service.runs.waiting_runs import WaitingRuns
from service.sessions import Sessions
from service.store import ownership
from service.store.database import Database
from service.store.sweep import Work
from service.tools import ToolRunner
from service.usage.build import UsageServices
from service.usage.concurrency import UNBOUNDED, ConcurrentRuns
from service.webhooks import Webhooks

if TYPE_CHECKING:
    from config.base import Settings


class Domains(NamedTuple):
    """Other domains that runs depend on."""

    agents: AgentCatalog
    model: ModelClients
    usage: UsageServices
    sessions: Sessions
    webhooks: Webhooks
    revocations: Revocations
    run_tokens: RunTokens
    refusals: Refusals
    tools: ToolRunner
    knowledge: KnowledgeServices
    embeddings: Embeddings | None  # of knowledge


@dataclass(frozen=True, slots=True)
class RunServices:
    """Services that start, execute, find, stop and recover runs."""

    start: RunStarter
    relays: RelayStarter
    execution: Execution
    queries: RunQueries
    cancellation: Cancellation
    deletion: Deletion
    stops: AgentStops
    bulkhead: Bulkhead
    bodies: BytesInFlight
    batches: BatchSubmitter
    waits: BudgetWaits
    estimates: Estimates
    forks: Forks
    gateway: GatewayCalls
    counts: TokenCounts
    model: ModelClients
    wakeup: Wakeup
    supervisor: Supervisor

    def close(self) -> None:
        """Stop: runs still executing are handed over."""
        self.supervisor.stop()
        self.batches.close()
        self.model.calls.close()
        self.model.relay.close()


def build(
    settings: Settings, infra: Infra, domains: Domains, role: ProcessRole, chores: Sequence[Chore]
) -> RunServices:
    """Build the run services. `chores` are work of other domains for the supervisor's sweep."""
    batch_steps = BatchSteps(infra.db, domains.usage.spending, domains.usage.prices)
    blocking = connect(settings.redis_url, max_connections=settings.threads + 4)
    event_streams = EventStreamReader(infra.redis_store, blocking)
    concurrent = _concurrent(settings, infra)
    runner = build_runner(settings, infra, domains, batch_steps)
    waits = runner.waits
    execution = _execution(settings, infra, runner, event_streams, concurrent)
    seconds, sessions = settings.run_timeout, domains.sessions
    queries = RunQueries(infra.db, event_streams, settings.heartbeat_seconds, seconds, role.draining)
    cancellation = Cancellation(infra.db, execution.slots, sessions, domains.webhooks)
    bulkhead = _bulkhead(settings)
    conflicts = Conflicts(sessions, queries, cancellation, bulkhead, settings.session_conflict, seconds)
    start = RunStarter(
        new_runs=_new_runs(settings, infra, domains, conflicts, execution.worker_id),
        lookups=build_cache(settings, infra, blocking, domains.knowledge.versions.of, domains.usage),
        execution=execution,
        queries=queries,
        conflicts=conflicts,
        bulkhead=bulkhead,
        concurrent=concurrent,
        redis_store=infra.redis_store,
        stops=AgentStops(infra.db, domains.revocations, domains.agents.has),
        guardrails=runner.guardrails,
        savings=domains.usage.savings,
    )
    batches = _batches(settings, infra, domains, batch_steps)
    own = [Chore(batches.tick_in_background, Work.BATCHES), Chore(waits.look, Work.BUDGET_WAITS)]
    supervisor = Supervisor(infra.db, execution, role, _times(settings), [*chores, *own])
    waits.woken, domains.usage.budgets.changed = supervisor.hurry, waits.caps_changed
    return RunServices(
        start,
        RelayStarter(start, relayed_answers(settings, infra)),
        execution,
        queries,
        cancellation,
        Deletion(infra.db, infra.redis_store),
        start.stops,
        bulkhead,
        BytesInFlight(2 * settings.door_body_limit),
        batches,
        waits,
        _estimates(settings, infra, domains, start),
        Forks(infra.db, domains.agents, domains.usage.prices),
        _gateway(settings, infra, domains, bulkhead, runner),
        TokenCounts(start.new_runs, domains.model, domains.usage.spending, runner.guardrails),
        domains.model,
        role.wakeup,
        supervisor,
    )


def _bulkhead(settings: Settings) -> Bulkhead:
    total = settings.request_places
    return Bulkhead(total, max(total // 2, settings.limit_concurrent_runs or total))


def _times(settings: Settings) -> Times:
    return Times(settings.lease_seconds, settings.sweep_seconds, settings.graceful_timeout)


def _new_runs(
    settings: Settings, infra: Infra, domains: Domains, conflicts: Conflicts, worker_id: str
) -> NewRuns:
    return NewRuns(
        infra.db,
        domains.agents,
        domains.sessions,
        conflicts,
        Continuations(infra.db),
        QueueBounds(infra.db, settings.limit_queued_runs, settings.max_queued_runs),
        domains.usage.prices,
        worker_id,
        settings.file_bytes_per_user,
    )


def _concurrent(settings: Settings, infra: Infra) -> ConcurrentRuns:
    at_once, running = settings.limit_concurrent_runs or UNBOUNDED, partial(_running, infra.db)
    return ConcurrentRuns(infra.redis_store, at_once, settings.run_timeout, running)


def _batches(settings: Settings, infra: Infra, domains: Domains, batch_steps: BatchSteps) -> BatchSubmitter:
    size, wait = settings.batch_max_size, settings.batch_max_wait_seconds
    return BatchSubmitter(infra.db, domains.model.batches, batch_steps, max_size=size, max_wait=wait)


def _estimates(settings: Settings, infra: Infra, domains: Domains, start: RunStarter) -> Estimates:
    usage, new_runs = domains.usage, start.new_runs
    ceilings = Ceilings(usage.prices, settings.model_retries, settings.session_history_tokens)
    return Estimates(
        infra.db, new_runs, domains.sessions, usage.budgets, usage.spending, ceilings, start.guardrails
    )


def _gateway(
    settings: Settings, infra: Infra, domains: Domains, bulkhead: Bulkhead, runner: Runner
) -> GatewayCalls:
    usage, tokens = domains.usage, domains.run_tokens
    reserved = max(1, (settings.most_requests - settings.request_places) // 2)
    return GatewayCalls(
        db=infra.db,
        tokens=tokens,
        client=domains.model.relay,
        prices=usage.prices,
        spending=usage.spending,
        watch=runner.relay.watch,
        guardrails=runner.guardrails,
        places=bulkhead,
        reserve=Bulkhead(reserved, reserved),
    )


def _execution(
    settings: Settings,
    infra: Infra,
    runner: Runner,
    event_streams: EventStreamReader,
    concurrent: ConcurrentRuns,
) -> Execution:
    note_gaps = partial(_note_live_gaps, infra.db)
    worker_id = new_id("wrk")
    waiting = WaitingRuns(infra.db, runner.catalog, runner.sessions, worker_id, settings.lease_seconds)
    return Execution(
        db=infra.db,
        catalog=runner.catalog,
        runner=runner,
        slots=Slots(settings.request_places),
        publisher=Publisher(infra.redis_store, settings.heartbeat_seconds, note_gaps),
        event_streams=event_streams,
        concurrent=concurrent,
        waiting=waiting,
        worker_id=worker_id,
        seconds=settings.run_timeout,
    )


def _running(db: Database, run_ids: Sequence[str]) -> dict[str, bool]:
    return db.query(lambda tx: ownership.running(tx, run_ids), patience=0)


def _note_live_gaps(db: Database, attempts: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    """Record gaps ahead of other writes: text of every stream in this process waits for it."""
    return db.transact(lambda tx: ownership.note_live_gaps(tx, attempts), patience=0, priority=True)
