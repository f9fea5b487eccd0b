"""The one composition root: settings in, everything the service is made of out."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from service.agents.catalog import AgentCatalog
from service.agents.last_good import LastGood
from service.agents.loader import Available
from service.agents.patterns import PATTERNS
from service.auth.first_admin import FirstAdmin
from service.auth.keys import KeyService
from service.auth.revocation import Revocations
from service.auth.tokens import SigningKey, TokenService
from service.auth.users import UserService
from service.cache.answers import AnswerCache
from service.cache.lookup import Lookups
from service.cache.normalise import Normaliser
from service.cache.semantic import Semantic
from service.cache.single_flight import SingleFlight
from service.errors import DatabaseUnavailable
from service.infra.redis import RedisStore
from service.infra.redis_client import connect
from service.llm.claude import ClaudeClient
from service.llm.client import ModelClient
from service.llm.embeddings import HttpEmbedder
from service.llm.retry import RetryingClient
from service.observe.log_lines import LogLines
from service.observe.metrics import Metrics
from service.observe.observer import Observer
from service.runs.batch.steps import BatchSteps
from service.runs.batch.submitter import BatchSubmitter
from service.runs.bulkhead import Bulkhead
from service.runs.cancel import Cancellation
from service.runs.conflicts import Conflicts
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.publisher import Publisher
from service.runs.execution import Execution
from service.runs.new_run import NewRuns
from service.runs.queries import RunQueries
from service.runs.recovery.supervisor import NoWakeup, Supervisor, Wakeup, WorkerProcess
from service.runs.runner import Runner
from service.runs.slots import Slots
from service.runs.start import RunStarter
from service.runs.steps import StepDependencies
from service.runs.tool_execution import ToolExecution
from service.sessions import Sessions
from service.store import fitness, ownership
from service.store.database import Database
from service.tools import ToolRunner
from service.tools.sources import SOURCES
from service.types import Tier, new_id
from service.usage.budgets import Budgets
from service.usage.caps import nano_of
from service.usage.concurrency import UNBOUNDED, ConcurrentRuns
from service.usage.prices import PriceTable
from service.usage.rate_limits import RateLimits
from service.usage.spending import Spending, sweep_holds
from service.webhooks import Webhooks

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway")
MOST_REDIS_CONNECTIONS = 64  # of a process: each is held for one round trip; those that block are apart
SWEEP_HOLDS_AFTER = (
    60.0  # seconds: whoever takes the run up had better settle them, and know what the run has cost
)


@dataclass(frozen=True, slots=True)
class Services:
    """Everything a view, a task or a command may use. One per process, made after the fork."""

    settings: Settings
    db: Database
    redis_store: RedisStore
    metrics: Metrics
    users: UserService
    tokens: TokenService
    keys: KeyService
    revocations: Revocations
    catalog: AgentCatalog
    model: ModelClient
    budgets: Budgets
    prices: PriceTable
    rate_limits: RateLimits
    batches: BatchSubmitter
    sessions: Sessions
    runs: RunStarter
    bulkhead: Bulkhead
    queries: RunQueries
    cancellation: Cancellation
    execution: Execution
    webhooks: Webhooks
    wakeup: Wakeup
    supervisor: Supervisor
    first_admin: FirstAdmin

    def start(self) -> None:
        """Begin what only a process that serves does: the first admin, the lease, recovery.

        Without a database it serves what it can: the keeper goes on trying, and makes the first admin.
        """
        self.catalog.tell()
        self.catalog.write_summary(self.settings.agents_summary)
        try:
            self.first_admin()
        except DatabaseUnavailable:
            log.warning("first_admin_waits_for_database")
        self.supervisor.start()

    def close(self) -> None:
        self.supervisor.stop()
        self.revocations.close()
        self.batches.close()
        self.model.close()
        self.redis_store.close()
        self.db.close()


def build(
    settings: Settings,
    *,
    kind: str = "web",
    model: ModelClient | None = None,
    wakeup: Wakeup | None = None,
    draining: Callable[[], bool] = lambda: False,
) -> Services:
    """Build everything for these settings. Nothing is connected yet. `model` stands in for the real client in tests.

    `wakeup` wakes the task workers; `draining` tells that this process is to stop.
    """
    metrics = Metrics()
    db = Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        check=fitness.check,
        retried=metrics.transaction_retried,
    )
    redis_store = RedisStore(
        settings.redis_url,
        max_connections=min(settings.threads + 8, MOST_REDIS_CONNECTIONS),
        on_change=metrics.redis_up,
    )
    revocations = Revocations(redis_store, db, access_seconds=settings.access_token_minutes * 60)
    prices = PriceTable.load()
    observer = Observer(metrics, LogLines(prices.usd_today))
    catalog = _catalog(settings, redis_store, prices)
    upstream = claude(settings)
    model = model or _model(settings, upstream, observer)
    sessions = Sessions(
        db, ttl_days=settings.session_ttl_days, history_tokens=settings.session_history_tokens
    )
    webhooks = Webhooks(
        db,
        settings.secret_key.get_secret_value(),
        allow_private=settings.webhook_allow_private,
        budget_url=settings.budget_webhook_url,
    )
    budgets = _budgets(settings, db, observer, webhooks, catalog)
    rate_limits = _rate_limits(settings, redis_store)
    spending = Spending(db, budgets, observer, run_most=_nano(settings.budget_run_usd), used=rate_limits.used)
    batch_steps = BatchSteps(db, spending, prices)
    tool_execution = ToolExecution(db, ToolRunner(called=observer.tool), rate_limits.tool)
    steps = StepDependencies(model, prices, tool_execution, spending, batch_steps, observer)
    batches = _batches(settings, db, upstream, batch_steps)
    total = settings.request_places
    bulkhead = Bulkhead(total, max(total // 2, settings.limit_concurrent_runs or total))
    patterns = {name: pattern.run for name, pattern in PATTERNS.items()}
    runner = Runner(catalog, patterns, steps, observer, sessions, webhooks)
    runs = _runs(settings, redis_store, db, runner, bulkhead, draining)
    execution, queries, cancellation = runs.execution, runs.queries, runs.conflicts.cancellation
    wakeup = wakeup or NoWakeup()
    users = UserService(db, redis_store, revocations, settings.secret_key.get_secret_value())
    first_admin = _first_admin(settings, users)
    sweep = partial(sweep_holds, db, spending, older_than=SWEEP_HOLDS_AFTER)
    chores: list[Callable[[], object]] = [
        catalog.refresh_in_background,
        batches.tick_in_background,
        webhooks.send_due,
        sweep,
    ]
    if kind == "web":
        chores.insert(0, first_admin)
    process = WorkerProcess(
        kind, settings.lease_seconds, settings.sweep_seconds, settings.graceful_timeout, draining
    )
    supervisor = Supervisor(db, execution, process, wakeup, chores)
    return Services(
        settings=settings,
        db=db,
        redis_store=redis_store,
        metrics=metrics,
        users=users,
        tokens=_tokens(settings, db, revocations),
        keys=KeyService(db, redis_store, revocations, settings.secret_key.get_secret_value()),
        revocations=revocations,
        catalog=catalog,
        model=model,
        budgets=budgets,
        prices=prices,
        rate_limits=rate_limits,
        batches=batches,
        sessions=sessions,
        runs=runs,
        bulkhead=bulkhead,
        queries=queries,
        cancellation=cancellation,
        execution=execution,
        webhooks=webhooks,
        wakeup=wakeup,
        supervisor=supervisor,
        first_admin=first_admin,
    )


def _first_admin(settings: Settings, users: UserService) -> FirstAdmin:
    return FirstAdmin(users, settings.bootstrap_username, settings.bootstrap_password.get_secret_value())


def _budgets(
    settings: Settings, db: Database, observer: Observer, webhooks: Webhooks, catalog: AgentCatalog
) -> Budgets:
    return Budgets(
        db,
        observer,
        user_day=_nano(settings.budget_user_day_usd),
        service_day=_nano(settings.budget_service_day_usd),
        notify=webhooks.budget_warning,
        has_agent=partial(_has_agent, catalog),
    )


def _batches(settings: Settings, db: Database, upstream: ClaudeClient, steps: BatchSteps) -> BatchSubmitter:
    return BatchSubmitter(
        db, upstream, steps, max_size=settings.batch_max_size, max_wait=settings.batch_max_wait_seconds
    )


def _rate_limits(settings: Settings, redis_store: RedisStore) -> RateLimits:
    return RateLimits.of(
        redis_store,
        tokens=settings.limit_tokens,
        tool=settings.limit_tool,
        invoke=settings.limit_invoke,
        stream=settings.limit_stream,
        task=settings.limit_task,
        session=settings.limit_session,
        refresh=settings.limit_writes,
        refused=settings.limit_refused,
    )


def _has_agent(catalog: AgentCatalog, name: str) -> bool:
    return name in catalog.agents


def _nano(amount_usd: str) -> int | None:
    return nano_of(amount_usd) if amount_usd else None


def _tokens(settings: Settings, db: Database, revocations: Revocations) -> TokenService:
    secret, pem = settings.secret_key.get_secret_value(), settings.jwt_private_key.get_secret_value()
    return TokenService(
        db,
        revocations,
        SigningKey.of(secret, pem),
        access_seconds=settings.access_token_minutes * 60,
        refresh_seconds=settings.refresh_token_days * 86_400,
    )


def _catalog(settings: Settings, redis_store: RedisStore, prices: PriceTable) -> AgentCatalog:
    """The agents that can be run; the others are named, and do not keep these from starting."""
    models: dict[Tier, str] = {
        "simple": settings.model_simple,
        "medium": settings.model_medium,
        "complex": settings.model_complex,
    }
    available = Available(PATTERNS, SOURCES, models, prices)
    if not settings.reload:
        return AgentCatalog(settings.agents_dir, available)
    with suppress(OSError):  # told when something in it cannot be written
        settings.slipway_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = LastGood(settings.slipway_home / "agents-last-good")
    return AgentCatalog(
        settings.agents_dir, available, last_good=kept, first=partial(_first_to_say, redis_store)
    )


def _first_to_say(redis_store: RedisStore, text: str, seconds: int) -> bool:
    """Whether no process has said this lately; without Redis each says it."""
    key = f"slipway:said:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32]}"
    return redis_store.call(lambda client: bool(client.set(key, "", nx=True, ex=seconds)), default=True)


def claude(settings: Settings) -> ClaudeClient:
    """The Messages API as it is, without retries: also for what a command wants of it."""
    return ClaudeClient(
        settings.anthropic_api_key.get_secret_value(),
        settings.anthropic_base_url,
        settings.model_timeout,
        settings.model_connect_timeout,
        settings.model_max_connections,
    )


def _model(settings: Settings, upstream: ClaudeClient, observer: Observer) -> ModelClient:
    return RetryingClient(
        upstream,
        settings.model_retries,
        settings.breaker_failures,
        settings.breaker_recovery,
        observer.attempt,
    )


def _answers(settings: Settings, redis_store: RedisStore) -> AnswerCache:
    plain = Normaliser(settings.near_stop_phrases.split(","))
    longest = settings.cache_ttl_seconds if settings.cache_enabled else 0
    if not settings.semantic_cache_url:
        return AnswerCache(redis_store, plain, longest=longest)
    embedder = HttpEmbedder(
        settings.semantic_cache_url,
        settings.semantic_cache_key.get_secret_value(),
        settings.semantic_cache_model,
    )
    nearest = Semantic(redis_store, embedder, settings.semantic_cache_threshold)
    return AnswerCache(redis_store, plain, nearest, longest=longest)


def _runs(
    settings: Settings,
    redis_store: RedisStore,
    db: Database,
    runner: Runner,
    bulkhead: Bulkhead,
    draining: Callable[[], bool],
) -> RunStarter:
    sessions, webhooks = runner.sessions, runner.webhooks
    seconds, heartbeat = settings.run_timeout, settings.heartbeat_seconds
    blocking = connect(settings.redis_url, max_connections=settings.threads + 4)
    event_streams = EventStreamReader(redis_store, blocking)
    at_once = settings.limit_concurrent_runs or UNBOUNDED
    concurrent = ConcurrentRuns(redis_store, at_once, seconds, partial(_under_way, db))
    execution = Execution(
        db=db,
        catalog=runner.catalog,
        runner=runner,
        slots=Slots(settings.request_places),
        publisher=Publisher(redis_store, heartbeat, partial(_note_live_gaps, db)),
        event_streams=event_streams,
        sessions=sessions,
        concurrent=concurrent,
        worker_id=new_id("wrk"),
        seconds=seconds,
        lease_seconds=settings.lease_seconds,
    )
    queries = RunQueries(db, event_streams, heartbeat, seconds, draining)
    cancellation = Cancellation(db, execution.slots, sessions, webhooks)
    conflicts = Conflicts(sessions, queries, cancellation, bulkhead, settings.session_conflict, seconds)
    answers = _answers(settings, redis_store)
    return RunStarter(
        new_runs=NewRuns(db, runner.catalog, sessions, conflicts, execution.worker_id),
        lookups=Lookups(answers, SingleFlight(redis_store, blocking, answers, seconds)),
        execution=execution,
        queries=queries,
        conflicts=conflicts,
        bulkhead=bulkhead,
        concurrent=concurrent,
    )


def _under_way(db: Database, run_ids: Sequence[str]) -> set[str]:
    return db.query(lambda tx: ownership.under_way(tx, run_ids), patience=0)


def _note_live_gaps(db: Database, attempts: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    """Note gaps ahead of other writes: the text of every stream of this process waits for it."""
    return db.transact(lambda tx: ownership.note_live_gaps(tx, attempts), patience=0, ahead=True)
