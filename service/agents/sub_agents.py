"""Check of agents that call others: these exist, have none themselves, and fit into the run's step limit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from service.agents.definitions import AgentDefinition, FolderFault
from service.text.suggest import unknown


def sub_agent_faults(agents: Mapping[str, AgentDefinition]) -> Iterator[FolderFault]:
    """Find agents whose sub-agents are missing, or make a tree without a bound."""
    for agent in agents.values():
        for name in agent.options.sub_agents:
            if name not in agents:
                yield _fault(agent, "agents", f"there is no agent {name!r}{unknown(name, agents)}")
            elif agents[name].options.sub_agents:
                yield _fault(agent, "agents", f"{name!r} has sub-agents itself: a tree has one level")
        names = agent.options.sub_agents
        if names and all(name in agents for name in names):
            most = agent.options.most_steps_of({name: agents[name].limits.steps for name in names})
            if most > agent.limits.steps:
                detail = f"must be at least {most}, for the model calls of the lead and of all its sub-agents"
                yield _fault(agent, "limits.steps", detail)


def _fault(agent: AgentDefinition, field: str, detail: str) -> FolderFault:
    return FolderFault(agent.id, str(agent.folder / "agent.yaml"), 0, field, detail)
