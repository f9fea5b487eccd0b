"""State of the search in documents: by words and meaning, or by words alone, and why."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from service.knowledge.passages import MAX_PASSAGE
from service.knowledge.vectors import BATCH, MAX_QUERY, Embedders, Why
from service.store import knowledge_vectors as vectors
from service.store.database import Database, Row, Transaction

PASSAGES = BATCH * MAX_PASSAGE  # tokens of a request to embed passages


def refused(db: Database, embedder: Embedders | None, workspace_id: str, agent: str) -> Why | None:
    """Return why no query of a workspace is embedded now; None: it is, where there are vectors to compare it with."""
    return _refused(db, embedder, workspace_id, agent, MAX_QUERY)


def searched_by(db: Database, embedder: Embedders | None, found: Sequence[Row]) -> list[Row]:
    """Return documents with `searched_by` and, where that is words alone, the `reason`."""

    @cache
    def why(workspace_id: str, agent: str, tokens: int) -> Why | None:
        return _refused(db, embedder, workspace_id, agent, tokens)

    whole = db.query(lambda tx: embedded(tx, embedder, found))

    def told(row: Row) -> dict[str, Any]:
        whose = row["workspace_id"], row["agent"]
        reason = why(*whose, MAX_QUERY)
        if reason is None and row["id"] not in whole:
            reason = why(*whose, PASSAGES) or "not_indexed"
        return by(reason)

    return [{**row, **told(row)} for row in found]


def by(reason: Why | None) -> dict[str, str | None]:
    """Return the fields of a document that is searched by words alone for this reason, or by meaning too."""
    return {"searched_by": "meaning" if reason is None else "words", "reason": reason}


def embedded(tx: Transaction, embedder: Embedders | None, found: Sequence[Row]) -> set[str]:
    """Return the ids of documents whose passages all have vectors that are searched."""
    if embedder is None or not vectors.available(tx):
        return set()
    return vectors.whole(tx, embedder.name, [row["id"] for row in found])


def _refused(
    db: Database, embedder: Embedders | None, workspace_id: str, agent: str, tokens: int
) -> Why | None:
    if embedder is None:
        return "no_endpoint"
    if not db.query(vectors.available):
        return "no_extension"
    return embedder.refusal(workspace_id, agent, tokens)
