"""Vectors of passages, on PostgreSQL with pgvector: by workspace (or folder), agent, embedding model and digest.

They are found by their digest, so passages of the same text share one, and a new cut embeds only what changed.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from service.store import postgres
from service.store.database import Database, Row, Transaction
from service.store.schema.knowledge import VECTORS

MIN_INDEXED = 20_000  # vectors of one size: fewer are compared one by one, which finds exactly the nearest
MOST_DIMENSIONS = 4_000  # of a `halfvec` in an HNSW index
_OF_SCOPE = "workspace_id = :workspace_id AND agent = :agent AND model = :model"
_EXISTS = sa.text("SELECT to_regclass('knowledge_vectors') IS NOT NULL AS found")
_ADD = sa.text(
    "INSERT INTO knowledge_vectors (workspace_id, agent, model, digest, embedding)"
    " VALUES (:workspace_id, :agent, :model, :digest, CAST(:embedding AS halfvec)) ON CONFLICT DO NOTHING"
)
_KNOWN = sa.text(f"SELECT digest FROM knowledge_vectors WHERE {_OF_SCOPE} AND digest = ANY(:digests)")
_DIGESTS = sa.text(
    f"SELECT digest FROM knowledge_vectors WHERE {_OF_SCOPE} AND digest > :after ORDER BY digest LIMIT :most"
)
_OTHER_MODELS = sa.text(
    "DELETE FROM knowledge_vectors WHERE ctid = ANY(ARRAY(SELECT ctid FROM knowledge_vectors"
    " WHERE workspace_id = :workspace_id AND agent = :agent AND model <> :model LIMIT :most))"
)
_DELETE = sa.text(  # but not those of documents added meanwhile
    f"DELETE FROM knowledge_vectors v WHERE {_OF_SCOPE} AND digest = ANY(:digests) AND NOT EXISTS"
    " (SELECT 1 FROM knowledge_passages p"
    " WHERE p.workspace_id = v.workspace_id AND p.agent = v.agent AND p.digest = v.digest)"
)
_SIZES = sa.text(
    "SELECT vector_dims(embedding) AS size FROM knowledge_vectors WHERE model = :model"
    f" AND vector_dims(embedding) <= {MOST_DIMENSIONS} GROUP BY 1 HAVING count(*) >= :least ORDER BY 1"
)
_WHOLE = sa.text(
    "SELECT d.id FROM knowledge_documents d JOIN knowledge_scopes s USING (workspace_id, agent)"
    " WHERE d.id = ANY(:ids) AND s.model = :model AND NOT EXISTS (SELECT 1 FROM knowledge_passages p"
    " WHERE p.document_id = d.id AND p.build = d.build AND NOT EXISTS (SELECT 1 FROM knowledge_vectors v"
    " WHERE v.workspace_id = p.workspace_id AND v.agent = p.agent AND v.model = :model AND v.digest = p.digest))"
)
_IS_VALID = sa.text("SELECT 1 AS found FROM pg_index WHERE indexrelid = to_regclass(:name) AND indisvalid")
# A filter that leaves few rows is read through the key; for one that leaves most, the scan of HNSW goes on until
# enough rows fit.
_GO_ON = sa.text("SELECT set_config('hnsw.iterative_scan', 'relaxed_order', true)")


def available(tx: Transaction) -> bool:
    """Return whether this database has vectors: PostgreSQL with the extension."""
    if tx.one_writer:
        return False
    return bool(tx.rows(_EXISTS)[0]["found"])


def make(tx: Transaction) -> None:
    """Make the table, where pgvector was installed after the migration that would have made it."""
    if not tx.one_writer and not available(tx):
        tx.execute(sa.text(VECTORS))


def known(tx: Transaction, scope: Row, model: str, digests: Sequence[str]) -> set[str]:
    """Return which of the digests have a vector."""
    return {row["digest"] for row in tx.rows(_KNOWN, {**_key(scope, model), "digests": list(digests)})}


def whole(tx: Transaction, model: str, document_ids: Sequence[str]) -> set[str]:
    """Return which documents have a vector of a model for each passage, in a scope that is searched by them."""
    return {row["id"] for row in tx.rows(_WHOLE, {"model": model, "ids": list(document_ids)})}


def digests(tx: Transaction, scope: Row, model: str, *, after: str, limit: int) -> list[str]:
    """List digests that have a vector, after one."""
    values = {**_key(scope, model), "after": after, "most": limit}
    return [row["digest"] for row in tx.rows(_DIGESTS, values)]


def add(tx: Transaction, scope: Row, model: str, vectors: Mapping[str, array[float]]) -> None:
    """Store vectors by digest."""
    rows = [
        {**_key(scope, model), "digest": digest, "embedding": _text(vector)}
        for digest, vector in vectors.items()
    ]
    if rows:
        tx.execute(_ADD, rows)


def delete(tx: Transaction, scope: Row, model: str, unused: Sequence[str]) -> None:
    tx.execute(_DELETE, {**_key(scope, model), "digests": list(unused)})


def delete_other_models(tx: Transaction, scope: Row, model: str, limit: int) -> int:
    """Delete at most `limit` vectors of other models than the one; return how many."""
    return tx.execute(_OTHER_MODELS, {**_key(scope, model), "most": limit})


def build_indexes(db: Database, model: str) -> list[str]:
    """Build an HNSW index for each size of a model's many vectors, beside searches; return those that are there."""
    sizes = db.query(lambda tx: tx.rows(_SIZES, {"model": model, "least": MIN_INDEXED}))
    names = [f"ix_knowledge_vectors_hnsw_{row['size']}" for row in sizes]
    for row, name in zip(sizes, names, strict=True):
        if not db.query(lambda tx, name=name: tx.rows(_IS_VALID, {"name": name})):  # type: ignore[misc]
            # One that is there is not valid: its build was cut off.
            postgres.run_alone(db.engine, f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            postgres.run_alone(
                db.engine,
                f"CREATE INDEX CONCURRENTLY {name} ON knowledge_vectors USING hnsw"
                f" ((CAST(embedding AS halfvec({row['size']}))) halfvec_cosine_ops)"
                f" WHERE vector_dims(embedding) = {row['size']}",
            )
    return names


def nearest(
    tx: Transaction, scope: Row, model: str, vector: array[float], limit: int
) -> list[tuple[str, float]]:
    """Return the digests nearest to a unit vector, with their cosine, nearest first."""
    size = len(vector)
    tx.rows(_GO_ON)
    # As `build_indexes` writes it.
    distance = f"(CAST(embedding AS halfvec({size})) <=> CAST(:vector AS halfvec({size})))"
    sql = (
        f"SELECT digest, 1 - {distance} AS cosine FROM knowledge_vectors"
        f" WHERE {_OF_SCOPE} AND vector_dims(embedding) = {size} ORDER BY {distance} LIMIT :most"
    )
    rows = tx.rows(sa.text(sql), {**_key(scope, model), "vector": _text(vector), "most": limit})
    return [(row["digest"], float(row["cosine"])) for row in rows]


def _key(scope: Row, model: str) -> dict[str, str]:
    return {"workspace_id": scope["workspace_id"], "agent": scope["agent"], "model": model}


def _text(vector: array[float]) -> str:
    return "[" + ",".join(f"{number:.6g}" for number in vector) + "]"
