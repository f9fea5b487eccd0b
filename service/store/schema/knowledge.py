"""Tables of knowledge: documents that admins add for a workspace, and their passages.

Stored in clear: a full-text index holds all words of a text anyway (docs/adr/0055). Beside these tables there are
structures of each database for search: see `service.store.knowledge_words` and `service.store.knowledge_vectors`.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, String, Text, UniqueConstraint

from service.store.schema.base import Json, metadata

# Documents of an agent in a workspace: sums, and a version that changes with each of them. A row without workspace
# ("") tells of the vectors of the agent's folder.
knowledge_scopes = sa.Table(
    "knowledge_scopes",
    metadata,
    Column("workspace_id", String(32), primary_key=True),
    Column("agent", String(64), primary_key=True),
    Column("version", BigInteger, nullable=False),
    Column("documents", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("passages", Integer, nullable=False),
    Column("tokens", BigInteger, nullable=False),
    Column("model", String(200)),  # of the vectors that are searched; null: words alone
    Column("updated_at", BigInteger, nullable=False),
)

knowledge_documents = sa.Table(
    "knowledge_documents",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("workspace_id", String(32), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("name", String(200), nullable=False),
    Column("title", String(200), nullable=False),
    Column("kind", String(16), nullable=False),
    Column("category", String(64), nullable=False),
    Column("trusted", Boolean, nullable=False),
    Column("digest", String(64), nullable=False),  # of the content as it was sent
    Column("size", Integer, nullable=False),  # bytes of the text
    Column("text", Text, nullable=False),
    Column("hosts", Json, nullable=False),  # hosts that answers may link to, if it is trusted
    Column("passages", Integer, nullable=False),
    Column("tokens", Integer, nullable=False),
    Column("rules", Integer, nullable=False),  # version of the rules by which it was cut
    Column("build", BigInteger, nullable=False),  # passages that are searched …
    Column("next_build", BigInteger),  # … and those that replace them once all documents are cut anew
    Column("created_at", BigInteger, nullable=False),
    Column("updated_at", BigInteger, nullable=False),
    UniqueConstraint("workspace_id", "agent", "name"),
)

knowledge_passages = sa.Table(
    "knowledge_passages",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column(
        "document_id", String(32), ForeignKey("knowledge_documents.id", ondelete="CASCADE"), nullable=False
    ),
    Column("build", BigInteger, nullable=False),
    Column("workspace_id", String(32), nullable=False),
    Column("agent", String(64), nullable=False),
    Column("title", Text, nullable=False),
    Column("uri", Text, nullable=False),
    Column("category", String(64), nullable=False),
    Column("text", Text, nullable=False),
    Column("words", Text, nullable=False),  # stems of title and text, joined by spaces
    Column("digest", String(64), nullable=False),  # of title and text, by which its vector is found
    Index("ix_knowledge_passages_document_id_build", "document_id", "build"),
    Index("ix_knowledge_passages_workspace_id_agent", "workspace_id", "agent"),
)

# Where the extension `vector` cannot be made, documents are searched by words alone.
VECTORS = """
DO $$ BEGIN
  CREATE EXTENSION IF NOT EXISTS vector;
  CREATE TABLE IF NOT EXISTS knowledge_vectors (
    workspace_id varchar(32) NOT NULL,
    agent varchar(64) NOT NULL,
    model varchar(200) NOT NULL,
    digest varchar(64) NOT NULL,
    embedding halfvec NOT NULL,
    PRIMARY KEY (workspace_id, agent, model, digest)
  );
EXCEPTION WHEN undefined_file OR feature_not_supported OR insufficient_privilege OR undefined_object THEN
  RAISE NOTICE 'no extension vector: knowledge is searched by words alone';
END $$
"""
# What the migration makes beside the tables, for databases that tests make without it.
_BESIDE = {
    "sqlite": (
        "CREATE VIRTUAL TABLE knowledge_words USING"
        " fts5(words, content='knowledge_passages', content_rowid='id', tokenize='ascii')",
        "CREATE TRIGGER knowledge_passages_added AFTER INSERT ON knowledge_passages BEGIN"
        " INSERT INTO knowledge_words(rowid, words) VALUES (new.id, new.words); END",
        "CREATE TRIGGER knowledge_passages_removed AFTER DELETE ON knowledge_passages BEGIN"
        " INSERT INTO knowledge_words(knowledge_words, rowid, words) VALUES ('delete', old.id, old.words); END",
    ),
    "postgresql": (
        "ALTER TABLE knowledge_passages ADD COLUMN lexemes tsvector"
        " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(words, ' '))) STORED",
        "CREATE INDEX ix_knowledge_passages_lexemes ON knowledge_passages USING gin (lexemes)",
        VECTORS,
    ),
}


def _create_beside(_table: sa.Table, connection: sa.Connection, **_options: Any) -> None:
    for statement in _BESIDE[connection.dialect.name]:
        connection.exec_driver_sql(statement)


sa.event.listen(knowledge_passages, "after_create", _create_beside)
