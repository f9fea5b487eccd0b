"""Folders of the agents that this program serves, loaded once at the start."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from agent_server.settings import Settings
from service.agents.definitions import AgentDefinition
from service.agents.loader import Available, load_folder
from service.agents.patterns import PATTERNS
from service.tools.sources import sources
from service.usage.prices import PriceTable

NOT_ALONE = ("orchestrator", "remote")  # patterns that ask other agents


class FolderFaults(Exception):
    """Raised when a folder cannot be served; each fault has a line."""


def load(settings: Settings, prices: PriceTable) -> Mapping[str, AgentDefinition]:
    """Load the agents, by name. Raises `FolderFaults` for all folders at once."""
    available = Available(PATTERNS, sources(settings.fetch_hosts), settings.models, prices)
    agents: dict[str, AgentDefinition] = {}
    faults: list[str] = []
    for folder in settings.folders:
        loaded = load_folder(folder.absolute(), available)
        faults += map(str, loaded.faults)
        if loaded.agent is not None:
            faults += [f"{folder}: {fault}" for fault in _not_alone(loaded.agent, agents)]
            agents[loaded.agent.id] = loaded.agent
    if faults:
        raise FolderFaults("\n".join(faults))
    return agents


def _not_alone(agent: AgentDefinition, others: Mapping[str, AgentDefinition]) -> Iterator[str]:
    """Find why an agent cannot be served alone. Calls that change something need Slipway's claims and its audit."""
    if agent.id in others:
        yield "another folder has the same name"
    if agent.pattern in NOT_ALONE:
        yield f"pattern {agent.pattern} asks other agents, which are Slipway's"
    for tool in agent.tools.values():
        if tool.changes:
            yield f"tool {tool.name} changes something: only Slipway itself makes such calls"
        elif not tool.idempotent:
            yield f"tool {tool.name} may not be called again, as it is after a lost answer"
