"""Composition root: builds all services from the settings. Each domain builds itself."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from service import approvals, embeddings, sessions, webhooks
from service.agents import build as agents
from service.agents.canaries import Canaries
from service.agents.catalog import AgentCatalog
from service.agents.versions import AgentVersions
from service.audit import build as audit
from service.auth import build as auth
from service.errors import DatabaseUnavailable
from service.health.overview import Overview
from service.health.process import ProcessState
from service.infra.backends import Infra
from service.infra.redis import RedisStore
from service.knowledge import build as knowledge
from service.llm import build as llm
from service.llm.client import ModelClient
from service.mcp import build as mcp
from service.memory import Memory
from service.observe import tracer as tracers
from service.observe.log_lines import LogLines
from service.observe.metrics import Metrics
from service.observe.observer import Observer
from service.observe.pools import Pools
from service.observe.spans import Spans
from service.observe.stored_values import StoredValues, of_disk
from service.privacy import keyring as keyrings
from service.privacy.erasure import Erasures
from service.privacy.keyring import Keyring
from service.runs import build as runs
from service.runs.recovery.supervisor import WEB, Chore, ProcessRole
from service.runs.standing import OVERSHOOT_SECONDS, StandingValues
from service.schedules.dispatch import Dispatcher
from service.schedules.schedules import Schedules
from service.store import fitness
from service.store.database import Database
from service.store.holds import ORPHANED_AFTER_MS
from service.store.sweep import Work
from service.tools import ToolRunner
from service.usage import build as usage
from service.usage.prices import ANTHROPIC, OPENAI, PriceTable
from service.usage.reservation import sweep_holds

if TYPE_CHECKING:
    from config.base import Settings

log = logging.getLogger("slipway")
# Redis connections of a process, each used for one round trip; blocking reads have connections of their own.
MAX_REDIS_CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Services:
    """Services of a view, a task or a command. One per process, created after the fork."""

    settings: Settings
    infra: Infra
    keyring: Keyring | None
    audit: audit.AuditServices
    auth: auth.AuthServices
    agents: AgentCatalog
    versions: AgentVersions
    mcp: mcp.McpServices
    usage: usage.UsageServices
    sessions: sessions.Sessions
    webhooks: webhooks.Webhooks
    runs: runs.RunServices
    erasures: Erasures
    schedules: Schedules
    knowledge: knowledge.KnowledgeServices
    dispatcher: Dispatcher
    memory: Memory
    pools: Pools
    health: Overview

    def start(self) -> None:
        """Start the parts that only a serving process has: first admin, signing keys, lease, recovery.

        Without a database the process serves all the same; the supervisor retries, and creates what is missing.
        """
        self.agents.log_faults()
        self.agents.write_summary(self.settings.agents_summary)
        try:
            self.auth.first_admin()
            self.auth.tokens.keys.refresh()
        except DatabaseUnavailable:
            log.warning("first_admin_waits_for_database")
        with suppress(DatabaseUnavailable):  # the supervisor tries again
            self.versions.refresh()
        self.audit.chainer.start()
        self.runs.supervisor.start()
        self.pools.start()

    def close(self) -> None:
        self.pools.close()
        self.runs.close()
        self.usage.savings.close()
        self.mcp.close()
        self.audit.chainer.close()
        self.auth.revocations.close()
        self.infra.close()
        if self.keyring is not None:
            self.keyring.close()


def build(
    settings: Settings,
    role: ProcessRole = WEB,
    model: ModelClient | None = None,
    tools: ToolRunner | None = None,
) -> Services:
    """Build all services for these settings. Nothing is connected yet.

    `model` replaces the real client in tests, `tools` the caller of tools in evals.
    """
    prices = _prices(settings)
    keyring = keyrings.build(settings.keyring_url)
    infra = _infra(settings, prices, keyring)
    trail = audit.build(settings, infra)
    accounts, servers = auth.build(settings, infra, trail.refusals), mcp.build(settings, infra)
    catalog = agents.build(settings, infra, prices, servers.sources)
    versions = _versions(settings, infra, catalog)
    tools = tools or ToolRunner(called=infra.observer.tool)
    clients, sender = llm.build(settings, infra), webhooks.build(settings, infra)
    money = usage.build(settings, infra, prices, notify=sender.budget_warning, has_agent=catalog.has)
    embedder = embeddings.build(llm.embedder(settings), infra, money)
    known = knowledge.build(settings, infra.db, embedder)
    domains = runs.Domains(
        catalog,
        clients._replace(calls=model or clients.calls),
        money,
        sessions.build(settings, infra),
        sender,
        accounts.revocations,
        accounts.run_tokens,
        trail.refusals,
        tools,
        known,
        embedder,
    )
    chores = [*_of_agents(catalog, versions), Chore(servers.refresh), *_chores(infra, trail, money, sender)]
    if role.kind == "web":
        chores = [*_of_web(accounts), Chore(trail.watch.look_in_background), *chores]
    built = runs.build(settings, infra, domains, role, chores)
    _read_at_scrape(settings, infra, StandingValues(infra.db, money.budgets, catalog))
    pools = _pools(infra, domains, built, role)
    accounts.users.refused = accounts.workspaces.refused = built.cancellation.of_refused
    return Services(
        settings,
        infra,
        keyring,
        trail,
        accounts,
        catalog,
        versions,
        servers,
        money,
        domains.sessions,
        sender,
        built,
        _erasures(infra, accounts, built, keyring),
        Schedules(infra.db, catalog, domains.sessions),
        known,
        _dispatcher(infra, catalog, built, role),
        Memory(infra.db),
        pools,
        _health(settings, infra, built, pools, servers, trail),
    )


def _versions(settings: Settings, infra: Infra, catalog: AgentCatalog) -> AgentVersions:
    """Build the versions of agents; a run finds there the one that it began with."""
    home, secret = settings.slipway_home / "agent-versions", settings.secret_key.get_secret_value()
    canaries = Canaries(infra.db, infra.metrics.canary)
    versions = AgentVersions(infra.db, catalog, home, secret, serves=not settings.reload, canaries=canaries)
    catalog.published = versions.find
    return versions


def _prices(settings: Settings) -> PriceTable:
    """Load the price table. Models of an upstream that is not set up keep their prices, for the books."""
    more = Path(settings.model_prices) if settings.model_prices else None
    return PriceTable.load(more=more, providers=(ANTHROPIC, OPENAI) if settings.openai_url else (ANTHROPIC,))


def _erasures(
    infra: Infra, accounts: auth.AuthServices, built: runs.RunServices, keyring: Keyring | None
) -> Erasures:
    """Build the erasures, with their chores."""
    made = Erasures(infra.db, infra.redis_store, accounts.users, built.queries, built.cancellation, keyring)
    built.supervisor.add(Chore(made.go_on_in_background, Work.ERASURES))
    built.supervisor.add(Chore(made.repeat_in_background))
    return made


def _dispatcher(
    infra: Infra, catalog: AgentCatalog, built: runs.RunServices, role: ProcessRole
) -> Dispatcher:
    """Build the dispatcher of schedules, with its chore."""
    made = Dispatcher(
        infra.db, catalog, built.start.new_runs, role.wakeup, infra.metrics, role.draining, infra.tracer
    )
    built.supervisor.add(Chore(made.dispatch_in_background, Work.SCHEDULES))
    return made


def _of_agents(catalog: AgentCatalog, versions: AgentVersions) -> list[Chore]:
    """Return the chores of agents: of folders, published versions and canaries."""
    return [
        Chore(catalog.refresh_in_background),
        Chore(versions.refresh_in_background, Work.AGENT_PINS),
        Chore(versions.refresh_at_times),
        Chore(versions.canaries.compare_in_background, Work.CANARIES),
    ]


def _of_web(accounts: auth.AuthServices) -> list[Chore]:
    """Return the chores of web processes."""
    return [Chore(accounts.first_admin), Chore(accounts.tokens.keys.refresh), Chore(accounts.keys.note_uses)]


def _chores(
    infra: Infra, trail: audit.AuditServices, money: usage.UsageServices, sender: webhooks.Webhooks
) -> list[Chore]:
    """Return the chores of domains below the runs."""
    settle = partial(sweep_holds, infra.db, money.spending, older_than=ORPHANED_AFTER_MS / 1000)
    return [
        Chore(sender.send_due, Work.DELIVERIES),
        Chore(settle, Work.ORPHANED_HOLDS),
        Chore(partial(approvals.expire, infra.db, infra.metrics.approval), Work.EXPIRED_APPROVALS),
        Chore(money.savings.write),
        Chore(trail.settings),
        Chore(trail.chainer.wake, Work.UNLINKED_AUDIT),
    ]


def _pools(infra: Infra, domains: runs.Domains, built: runs.RunServices, role: ProcessRole) -> Pools:
    """Build the gauges of this process's pools; a worker of Gunicorn adds its threads."""
    places, tools = built.bulkhead, domains.tools.places
    made = Pools(
        infra.metrics.pool,
        database=lambda: infra.db.connections,
        model=domains.model.connections,
        tools=lambda: (tools.used, tools.size),
    )
    if role.kind == "web":
        made.add("places", lambda: (places.taken, places.total))
    return made


def _health(
    settings: Settings,
    infra: Infra,
    built: runs.RunServices,
    pools: Pools,
    servers: mcp.McpServices,
    trail: audit.AuditServices,
) -> Overview:
    """Build the overview of the service; this process tells its part with its lease."""
    connections, slots, traffic = servers.connections, built.execution.slots, infra.metrics.traffic
    states = connections.states if connections is not None else list
    breakers = built.model.breakers
    own = ProcessState(pools, slots, traffic, breakers, states, lambda: trail.watch.intact)
    built.supervisor.state = own.read
    return Overview(infra.db, built.stops, own, settings.slipway_home)


def _read_at_scrape(settings: Settings, infra: Infra, standing: StandingValues) -> None:
    """Have /metrics read what stands in the database, and the room on the disk."""
    infra.metrics.read_at_scrape(
        StoredValues(standing.read, "database_up"),
        StoredValues(standing.overshoot, keep=OVERSHOOT_SECONDS),
        StoredValues(partial(of_disk, settings.slipway_home)),
    )


def _infra(settings: Settings, prices: PriceTable, keyring: Keyring | None) -> Infra:
    metrics = Metrics()
    size, at_once = settings.database_pool_size, min(settings.threads + 8, MAX_REDIS_CONNECTIONS)
    db = Database(
        settings.database_url,
        pool_size=size,
        check=fitness.check,
        retried=metrics.transaction_retried,
        keys=keyring,
    )
    redis_store = RedisStore(settings.redis_url, max_connections=at_once, on_change=metrics.redis_up)
    process = {"deployment.environment.name": settings.environment}
    tracer, price = tracers.build(settings, process, metrics.spans), prices.usd_today
    told = [metrics, LogLines(price), *([Spans(tracer, price)] if tracer.on else [])]
    return Infra(db, redis_store, metrics, Observer(*told), tracer)
