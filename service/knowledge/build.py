"""Construction of the knowledge services: documents of workspaces, their indexing, and searches of runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.knowledge.documents import Documents, Limits
from service.knowledge.folder import Knowledge
from service.knowledge.indexing import Indexing
from service.knowledge.search import RunKnowledge
from service.knowledge.vectors import Embedder, Embedders
from service.knowledge.versions import DocumentVersions
from service.store.database import Database

if TYPE_CHECKING:
    from config.base import Settings


@dataclass(frozen=True, slots=True)
class KnowledgeServices:
    """Services of knowledge. `embedder`: of the endpoint, if one is set."""

    db: Database
    documents: Documents
    indexing: Indexing
    versions: DocumentVersions
    embedder: Embedders | None

    def of_run(
        self, folder: Knowledge | None, workspace_id: str, agent: str, embedder: Embedder | None
    ) -> RunKnowledge:
        """Return the knowledge of one run: that of its agent's folder, and of its workspace.

        `embedder` is the one that it pays.
        """
        return RunKnowledge(folder, self.db, embedder, workspace_id, agent)


def build(settings: Settings, db: Database, embedder: Embedders | None) -> KnowledgeServices:
    limits = Limits(settings.knowledge_documents, settings.knowledge_bytes, settings.knowledge_passages)
    versions = DocumentVersions(db)
    documents = Documents(db, limits, embedder, versions.forget)
    return KnowledgeServices(db, documents, Indexing(db, embedder, versions.forget), versions, embedder)
