"""Composition root: builds all services from the settings. Each domain builds itself."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from service.agents.build import build as build_agents
from service.agents.catalog import AgentCatalog
from service.auth.build import AuthServices
from service.auth.build import build as build_auth
from service.errors import DatabaseUnavailable
from service.infra.backends import Infra
from service.infra.redis import RedisStore
from service.llm.build import build as build_model
from service.llm.build import claude
from service.llm.client import ModelClient
from service.observe.log_lines import LogLines
from service.observe.metrics import Metrics
from service.observe.observer import Observer
from service.runs.build import Domains, RunServices
from service.runs.build import build as build_runs
from service.runs.recovery.supervisor import Chore, NoWakeup, Supervisor, Wakeup, WorkerProcess
from service.sessions import Sessions
from service.store import fitness
from service.store.database import Database
from service.store.holds import ORPHANED_AFTER_MS
from service.store.sweep import Work
from service.usage.build import UsageServices
from service.usage.build import build as build_usage
from service.usage.prices import PriceTable
from service.usage.reservation import sweep_holds
from service.webhooks import Webhooks

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway")
MAX_REDIS_CONNECTIONS = (
    64  # per process, each used for one round trip; blocking reads have connections of their own
)


@dataclass(frozen=True, slots=True)
class Services:
    """Services of a view, a task or a command. One per process, created after the fork."""

    settings: Settings
    infra: Infra
    auth: AuthServices
    agents: AgentCatalog
    model: ModelClient
    usage: UsageServices
    sessions: Sessions
    webhooks: Webhooks
    runs: RunServices
    supervisor: Supervisor

    def start(self) -> None:
        """Start the parts that only a serving process has: first admin, lease, recovery.

        Without a database the process serves all the same; the supervisor retries, and creates the first admin.
        """
        self.agents.log_faults()
        self.agents.write_summary(self.settings.agents_summary)
        try:
            self.auth.first_admin()
        except DatabaseUnavailable:
            log.warning("first_admin_waits_for_database")
        self.supervisor.start()

    def close(self) -> None:
        self.supervisor.stop()
        self.auth.revocations.close()
        self.runs.batches.close()
        self.model.close()
        self.infra.close()


def build(
    settings: Settings,
    *,
    kind: str = "web",
    model: ModelClient | None = None,
    wakeup: Wakeup | None = None,
    draining: Callable[[], bool] = lambda: False,
) -> Services:
    """Build all services for these settings. Nothing is connected yet. `model` replaces the real client in tests.

    `wakeup` wakes the task workers; `draining` returns whether this process is stopping.
    """
    prices = PriceTable.load()
    infra = _infra(settings, prices)
    auth = build_auth(settings, infra)
    agents = build_agents(settings, infra, prices)
    upstream = claude(settings)
    model = model or build_model(settings, infra, upstream)
    sessions = Sessions(
        infra.db, ttl_days=settings.session_ttl_days, history_tokens=settings.session_history_tokens
    )
    webhooks = Webhooks(
        infra.db,
        settings.secret_key.get_secret_value(),
        allow_private=settings.webhook_allow_private,
        budget_url=settings.budget_webhook_url,
    )
    usage = build_usage(settings, infra, prices, notify=webhooks.budget_warning, has_agent=agents.has)
    domains = Domains(agents, model, upstream, usage, sessions, webhooks)
    runs = build_runs(settings, infra, domains, wakeup or NoWakeup(), draining)
    process = WorkerProcess(
        kind, settings.lease_seconds, settings.sweep_seconds, settings.graceful_timeout, draining
    )
    chores = _chores(kind, infra, auth, domains, runs)
    supervisor = Supervisor(infra.db, runs.execution, process, runs.wakeup, chores)
    return Services(settings, infra, auth, agents, model, usage, sessions, webhooks, runs, supervisor)


def _chores(kind: str, infra: Infra, auth: AuthServices, domains: Domains, runs: RunServices) -> list[Chore]:
    """List what the supervisor's sweep does beside the runs."""
    settle = partial(sweep_holds, infra.db, domains.usage.spending, older_than=ORPHANED_AFTER_MS / 1000)
    return [
        *([Chore(auth.first_admin)] if kind == "web" else []),
        Chore(domains.agents.refresh_in_background),
        Chore(runs.batches.tick_in_background, Work.BATCHES),
        Chore(domains.webhooks.send_due, Work.DELIVERIES),
        Chore(settle, Work.ORPHANED_HOLDS),
    ]


def _infra(settings: Settings, prices: PriceTable) -> Infra:
    metrics = Metrics()
    db = Database(
        settings.database_url,
        pool_size=settings.database_pool_size,
        check=fitness.check,
        retried=metrics.transaction_retried,
    )
    redis_store = RedisStore(
        settings.redis_url,
        max_connections=min(settings.threads + 8, MAX_REDIS_CONNECTIONS),
        on_change=metrics.redis_up,
    )
    return Infra(db, redis_store, metrics, Observer(metrics, LogLines(prices.usd_today)))
