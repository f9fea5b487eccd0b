"""Construction of the agent catalog: agents' folders, and the patterns, tool sources and models they may refer to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from service.agents.catalog import AgentCatalog
from service.agents.elsewhere import addresses_of
from service.agents.last_good import LastGood
from service.agents.loader import Available
from service.agents.packages import packaged_agents
from service.agents.patterns import PATTERNS
from service.agents.remote_spec import hosts_of
from service.guardrails.prompt_marker import marker_of
from service.infra.backends import Infra
from service.infra.redis import RedisStore
from service.tools.sources import sources
from service.tools.sources.base import ToolSource
from service.tools.sources.packages import Packages, PackageTools
from service.types import Tier
from service.usage.prices import PriceTable

if TYPE_CHECKING:
    from config.base import Settings


def build(
    settings: Settings, infra: Infra, prices: PriceTable, more: Sequence[ToolSource] = ()
) -> AgentCatalog:
    """Load the valid agents, with `more` sources of tools; faulty ones are reported and do not prevent the start."""
    models: dict[Tier, str] = {
        "simple": settings.model_simple,
        "medium": settings.model_medium,
        "complex": settings.model_complex,
    }
    packages = Packages(settings.agent_packages)
    tools = PackageTools(packages)
    packaged = packaged_agents(packages, tools)
    own = sources(settings.fetch_hosts.split(","))
    addresses = addresses_of(settings.remote_agents)
    hosts = hosts_of(settings.remote_hosts)
    marker = marker_of(settings.secret_key.get_secret_value())
    available = Available(PATTERNS, (tools, *own, *more), models, prices, addresses, hosts, marker)
    if not settings.reload:
        return AgentCatalog(settings.agents_dir, available, packaged)
    with suppress(OSError):  # reported by the first write into it that fails
        settings.slipway_home.mkdir(mode=0o700, parents=True, exist_ok=True)
    last_good = LastGood(settings.slipway_home / "agents-last-good")
    first = partial(_first_to_log, infra.redis_store)
    return AgentCatalog(settings.agents_dir, available, packaged, last_good=last_good, first=first)


def _first_to_log(redis_store: RedisStore, text: str, seconds: int) -> bool:
    """Return whether no process has logged this text within `seconds`; without Redis always True."""
    key = f"slipway:said:{hashlib.sha256(text.encode('utf-8', 'replace')).hexdigest()[:32]}"
    return redis_store.call(lambda client: bool(client.set(key, "", nx=True, ex=seconds)), default=True)
