"""Documents that a run reads: of its agent's folder and its workspace, whose queries are embedded at its cost."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from service.agents.definitions import AgentDefinition
from service.agents.documents import with_documents
from service.embeddings import Embeddings
from service.knowledge import Knowledge
from service.knowledge.build import KnowledgeServices
from service.runs.journal import Journal
from service.store.holds import Hold
from service.types import NO_USAGE, Run


@dataclass(frozen=True, slots=True)
class RunDocuments:
    """Knowledge of the runs of one process."""

    services: KnowledgeServices
    embeddings: Embeddings | None

    def of(
        self, agent: AgentDefinition, run: Run, journal: Journal, tree: Hold | None = None
    ) -> AgentDefinition:
        """Return an agent as a run knows it. `tree`: hold of sub-agents, from which those of their calls are taken."""
        embedder = None
        if self.embeddings is not None:
            embedder = self.embeddings.of(run, tree, partial(journal.spent, NO_USAGE))

        def of_run(folder: Knowledge | None, name: str) -> Knowledge:
            return self.services.of_run(folder, run.workspace_id, name, embedder)

        return with_documents(agent, of_run)
