"""Agents that call others: these exist, have none themselves, and fit into the run's step limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.agents.definitions import AgentDefinition, FolderFault
from service.text.suggest import unknown


def sub_agent_faults(agents: Mapping[str, AgentDefinition]) -> Iterator[FolderFault]:
    """Find agents whose sub-agents are missing, or make a tree without a bound."""
    for agent in agents.values():
        names = agent.options.sub_agents
        faults = [_fault(agent, "agents", detail) for name in names if (detail := _wrong(name, agents))]
        yield from faults
        if names and not faults:
            most = agent.options.most_steps_of({name: agents[name].limits.steps for name in names})
            if most > agent.limits.steps:
                detail = f"must be at least {most}, for the model calls of the lead and of all its sub-agents"
                yield _fault(agent, "limits.steps", detail)


def owners_of(tool: str, agent: str, agents: Mapping[str, AgentDefinition]) -> list[AgentDefinition]:
    """Return those of an agent and its sub-agents that have a tool: a call in its run is of one of these."""
    lead = agents.get(agent)
    names = (agent, *lead.options.sub_agents) if lead is not None else ()
    return [agents[name] for name in names if name in agents and tool in agents[name].tools]


def _wrong(name: str, agents: Mapping[str, AgentDefinition]) -> str:
    """Return why an agent cannot be a sub-agent; empty if it can."""
    if name not in agents:
        return f"there is no agent {name!r}{unknown(name, agents)}"
    return f"{name!r} has sub-agents itself: a tree has one level" if agents[name].options.sub_agents else ""


def _fault(agent: AgentDefinition, field: str, detail: str) -> FolderFault:
    return FolderFault(agent.id, str(agent.folder / "agent.yaml"), 0, field, detail)
