"""Documents of workspaces, for the agents that read some."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from service.agents.definitions import AgentDefinition
from service.errors import Conflict, fault
from service.knowledge import Knowledge
from service.text.suggest import did_you_mean
from service.tools.sources.builtin import search_knowledge

OfRun = Callable[[Knowledge | None, str], Knowledge]  # folder, and name of the agent


def reads_documents(agent: AgentDefinition) -> bool:
    """Return whether an agent has documents, or a tool that searches them."""
    return agent.knowledge is not None or search_knowledge.name in agent.tools


def with_documents(agent: AgentDefinition, of_run: OfRun) -> AgentDefinition:
    """Return an agent as a run knows it: with the documents of its workspace."""
    if not reads_documents(agent):
        return agent
    return replace(agent, knowledge=of_run(agent.knowledge, agent.id))


def check_category(agent: AgentDefinition, category: str) -> None:
    """Check that runs of an agent can find a document of this category. Raises `Conflict` and `Invalid`."""
    if not reads_documents(agent):
        why = f"it has no folder `knowledge`, and no tool {search_knowledge.name}"
        raise Conflict(f"The agent {agent.id} reads no documents: {why}.")
    labels = agent.options.labels
    if labels and category not in labels:
        raise fault("/category", f"must be one of {', '.join(labels)}{did_you_mean(category, labels)}")
