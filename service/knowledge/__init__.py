"""Knowledge: documents of agents and workspaces, cut into passages and searched by words and by meaning."""

from __future__ import annotations

from service.knowledge.folder import Knowledge, KnowledgeFault, excluded_files
from service.knowledge.passages import MAX_PASSAGE, MAX_QUOTE, Passage

__all__ = ["MAX_PASSAGE", "MAX_QUOTE", "Knowledge", "KnowledgeFault", "Passage", "excluded_files"]
