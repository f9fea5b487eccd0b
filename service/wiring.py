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
from service.cache.normalise import Normaliser
from service.cache.semantic import Semantic
from service.cache.single_flight import SingleFlight
from service.errors import DatabaseUnavailable, PriceUnknown
from service.infra.redis import RedisStore
from service.infra.redis_client import connect
from service.llm.claude import ClaudeClient
from service.llm.client import ModelClient
from service.llm.embeddings import HttpEmbedder
from service.llm.retry import ModelAttempt, RetryingClient
from service.observe.logs import event
from service.observe.metrics import Metrics
from service.runs.batch.steps import BatchSteps
from service.runs.batch.submitter import BatchSubmitter
from service.runs.bulkhead import Bulkhead
from service.runs.conflicts import Conflicts
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.publisher import Publisher
from service.runs.execution import Execution
from service.runs.queries import RunQueries
from service.runs.recovery.supervisor import NoWakeup, Supervisor, Wakeup
from service.runs.runner import Runner
from service.runs.slots import Slots
from service.runs.start import RunStarter
from service.runs.steps import StepDependencies
from service.runs.tool_execution import ToolExecution
from service.sessions import Sessions
from service.store import fitness, ownership
from service.store.database import Database, Transaction
from service.tools import ToolRunner
from service.tools.sources import SOURCES
from service.types import Run, Tier, new_id, usd
from service.usage.budgets import Budgets
from service.usage.caps import BudgetWarning, nano_of
from service.usage.concurrency import UNBOUNDED, ConcurrentRuns
from service.usage.prices import PriceTable, today
from service.usage.rate_limits import RateLimits
from service.usage.spending import Spending, sweep_holds
from service.webhooks import BUDGET_SIGNER, Webhooks

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
    """Everything for these settings. Nothing is connected yet. `model` stands in for the real client in tests.

    `bell` wakes the task workers; `draining` tells that this process is to stop.
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
    catalog = _catalog(settings, redis_store, prices)
    upstream = claude(settings)
    model = model or _model(settings, metrics, prices, upstream)
    sessions = Sessions(
        db, ttl_days=settings.session_ttl_days, history_tokens=settings.session_history_tokens
    )
    webhooks = Webhooks(
        db, settings.secret_key.get_secret_value(), allow_private=settings.webhook_allow_private
    )
    budgets = _budgets(settings, db, metrics, webhooks, catalog)
    rate_limits = RateLimits.of(redis_store, tokens=settings.limit_tokens, tool=settings.limit_tool)
    spending = Spending(db, budgets, metrics, run_most=_nano(settings.budget_run_usd), used=rate_limits.used)
    deferred = BatchSteps(db, spending, prices)
    tool_execution = ToolExecution(db, ToolRunner(called=metrics.tool_call), rate_limits.tool)
    means = StepDependencies(model, prices, tool_execution, spending, deferred)
    batches = _batches(settings, db, upstream, deferred)
    total = settings.request_places
    bulkhead = Bulkhead(total, max(total // 2, settings.limit_concurrent_runs or total))
    runs, execution, queries, active = _runs(
        settings, db, redis_store, metrics, catalog, means, sessions, webhooks, bulkhead, draining
    )
    wakeup = wakeup or NoWakeup()
    users = UserService(db, redis_store, revocations, settings.secret_key.get_secret_value())
    first_admin = _first_admin(settings, users)
    sweep = partial(sweep_holds, db, spending, older_than=SWEEP_HOLDS_AFTER)
    supervisor = Supervisor(
        db=db,
        execution=execution,
        active=active,
        kind=kind,
        lease_seconds=settings.lease_seconds,
        sweep_seconds=settings.sweep_seconds,
        wakeup=wakeup,
        chores=(
            *([first_admin] if kind == "web" else []),
            catalog.refresh_in_background,
            batches.tick_in_background,
            webhooks.send_due,
            sweep,
        ),
        draining=draining,
        grace=settings.graceful_timeout,
    )
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
        execution=execution,
        webhooks=webhooks,
        wakeup=wakeup,
        supervisor=supervisor,
        first_admin=first_admin,
    )


def _first_admin(settings: Settings, users: UserService) -> FirstAdmin:
    return FirstAdmin(users, settings.bootstrap_username, settings.bootstrap_password.get_secret_value())


def _budgets(
    settings: Settings, db: Database, metrics: Metrics, webhooks: Webhooks, catalog: AgentCatalog
) -> Budgets:
    return Budgets(
        db,
        metrics,
        user_day=_nano(settings.budget_user_day_usd),
        service_day=_nano(settings.budget_service_day_usd),
        told=_teller(settings, webhooks),
        has_agent=lambda name: name in catalog.agents,
    )


def _batches(
    settings: Settings, db: Database, upstream: ClaudeClient, deferred: BatchSteps
) -> BatchSubmitter:
    return BatchSubmitter(
        db, upstream, deferred, max_size=settings.batch_max_size, max_wait=settings.batch_max_wait_seconds
    )


def _teller(settings: Settings, webhooks: Webhooks) -> Callable[[Transaction, BudgetWarning], None]:
    """Whom a budget's warnings are told: the webhook of the settings, where there is one."""

    def told(tx: Transaction, warning: BudgetWarning) -> None:
        if url := settings.budget_webhook_url:
            body = {"event": "budget_warning", **warning.public()}
            webhooks.notice(tx, warning.id, url, BUDGET_SIGNER, body)

    return told


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


def _model(settings: Settings, metrics: Metrics, prices: PriceTable, upstream: ClaudeClient) -> ModelClient:
    def observed(attempt: ModelAttempt) -> None:
        metrics.model_call(attempt.model, attempt.error_code or "ok", attempt.ms / 1000)
        metrics.breaker_open(attempt.model, client.breaker(attempt.model).state == "open")
        if attempt.usage is not None:
            metrics.tokens(attempt.model, attempt.usage)
        event(
            log,
            "llm_call",
            model=attempt.model,
            attempt=attempt.attempt,
            ok=attempt.ok,
            latency_ms=round(attempt.ms, 1),
            error_code=attempt.error_code,
            input_tokens=attempt.usage.input_tokens if attempt.usage else None,
            output_tokens=attempt.usage.output_tokens if attempt.usage else None,
            cost_usd=_cost(prices, attempt),
            stream=attempt.stream,
        )

    client = RetryingClient(
        upstream, settings.model_retries, settings.breaker_failures, settings.breaker_recovery, observed
    )
    return client


def _cost(prices: PriceTable, attempt: ModelAttempt) -> str | None:
    if attempt.usage is not None:
        with suppress(PriceUnknown):
            return usd(prices.price(attempt.model, today()).cost(attempt.usage))
    return None


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


def _note_live_gaps(db: Database, told: Sequence[tuple[str, int]]) -> set[tuple[str, int]]:
    """At once: the text of every stream of this process waits for it."""
    return db.transact(lambda tx: ownership.note_live_gaps(tx, told), patience=0, ahead=True)


def _runs(
    settings: Settings,
    db: Database,
    redis_store: RedisStore,
    metrics: Metrics,
    catalog: AgentCatalog,
    means: StepDependencies,
    sessions: Sessions,
    webhooks: Webhooks,
    bulkhead: Bulkhead,
    draining: Callable[[], bool],
) -> tuple[RunStarter, Execution, RunQueries, Slots]:
    active = Slots(settings.request_places)

    def ended(tx: Transaction, run: Run) -> None:
        sessions.end(tx, run)
        webhooks.schedule(tx, run)

    patterns = {name: pattern.run for name, pattern in PATTERNS.items()}
    runner = Runner(db, catalog, patterns, means, metrics, sessions, ended)
    blocking = connect(settings.redis_url, max_connections=settings.threads + 4)
    live = EventStreamReader(redis_store, blocking)
    concurrent = ConcurrentRuns(
        redis_store,
        settings.limit_concurrent_runs or UNBOUNDED,
        settings.run_timeout,
        lambda run_ids: db.query(lambda tx: ownership.under_way(tx, run_ids), patience=0),
    )
    execution = Execution(
        db=db,
        catalog=catalog,
        runner=runner,
        active=active,
        publisher=Publisher(redis_store, settings.heartbeat_seconds, partial(_note_live_gaps, db)),
        live=live,
        sessions=sessions,
        concurrent=concurrent,
        worker_id=new_id("wrk"),
        seconds=settings.run_timeout,
        lease_seconds=settings.lease_seconds,
    )
    queries = RunQueries(
        db=db,
        active=active,
        live=live,
        ended=ended,
        heartbeat=settings.heartbeat_seconds,
        seconds=settings.run_timeout,
        draining=draining,
    )
    answers = _answers(settings, redis_store)
    runs = RunStarter(
        db=db,
        catalog=catalog,
        bulkhead=bulkhead,
        concurrent=concurrent,
        execution=execution,
        queries=queries,
        answers=answers,
        single_flight=SingleFlight(redis_store, blocking, answers, settings.run_timeout),
        sessions=sessions,
        conflicts=Conflicts(sessions, queries, bulkhead, settings.session_conflict, settings.run_timeout),
        seconds=settings.run_timeout,
        heartbeat=settings.heartbeat_seconds,
    )
    return runs, execution, queries, active
