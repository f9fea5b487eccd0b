"""knowledge_scopes, knowledge_documents, knowledge_passages: documents of workspaces, and what they are searched by

Revision ID: 0039
Revises: 0038
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from migrations import gentle

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None
OLDEST_CODE = "0002"  # older code reads the folders of agents only

# Words in the database's file. The rows themselves stay in `knowledge_passages`.
_SQLITE = (
    "CREATE VIRTUAL TABLE IF NOT EXISTS knowledge_words USING"
    " fts5(words, content='knowledge_passages', content_rowid='id', tokenize='ascii')",
    "CREATE TRIGGER IF NOT EXISTS knowledge_passages_added AFTER INSERT ON knowledge_passages BEGIN"
    " INSERT INTO knowledge_words(rowid, words) VALUES (new.id, new.words); END",
    "CREATE TRIGGER IF NOT EXISTS knowledge_passages_removed AFTER DELETE ON knowledge_passages BEGIN"
    " INSERT INTO knowledge_words(knowledge_words, rowid, words) VALUES ('delete', old.id, old.words); END",
)
_POSTGRESQL = (
    "ALTER TABLE knowledge_passages ADD COLUMN IF NOT EXISTS lexemes tsvector"
    " GENERATED ALWAYS AS (array_to_tsvector(string_to_array(words, ' '))) STORED",
    "CREATE INDEX IF NOT EXISTS ix_knowledge_passages_lexemes ON knowledge_passages USING gin (lexemes)",
)
# Where the extension `vector` cannot be made, documents are searched by words alone.
_VECTORS = """
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


def upgrade() -> None:
    _create_scopes()
    _create_documents()
    _create_passages()
    for statement in (*_POSTGRESQL, _VECTORS) if gentle.on_postgresql() else _SQLITE:
        op.execute(statement)


def downgrade() -> None:
    if gentle.on_postgresql():
        op.execute("DROP TABLE IF EXISTS knowledge_vectors")
    else:
        op.execute("DROP TABLE IF EXISTS knowledge_words")
    for table in ("knowledge_passages", "knowledge_documents", "knowledge_scopes"):
        op.drop_table(table, if_exists=True)


def _create_scopes() -> None:
    op.create_table(
        "knowledge_scopes",
        sa.Column("workspace_id", sa.String(length=32), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("documents", sa.Integer(), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("model", sa.String(length=200)),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("workspace_id", "agent", name="pk_knowledge_scopes"),
        if_not_exists=True,
    )


def _create_documents() -> None:
    op.create_table(
        "knowledge_documents",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("trusted", sa.Boolean(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("hosts", sa.JSON(), nullable=False),
        sa.Column("passages", sa.Integer(), nullable=False),
        sa.Column("tokens", sa.Integer(), nullable=False),
        sa.Column("rules", sa.Integer(), nullable=False),
        sa.Column("build", sa.BigInteger(), nullable=False),
        sa.Column("next_build", sa.BigInteger()),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_knowledge_documents"),
        sa.UniqueConstraint(
            "workspace_id", "agent", "name", name="uq_knowledge_documents_workspace_id_agent_name"
        ),
        if_not_exists=True,
    )


def _create_passages() -> None:
    op.create_table(
        "knowledge_passages",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False
        ),
        sa.Column("document_id", sa.String(length=32), nullable=False),
        sa.Column("build", sa.BigInteger(), nullable=False),
        sa.Column("workspace_id", sa.String(length=32), nullable=False),
        sa.Column("agent", sa.String(length=64), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("uri", sa.Text(), nullable=False),
        sa.Column("category", sa.String(length=64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("words", sa.Text(), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["document_id"],
            ["knowledge_documents.id"],
            name="fk_knowledge_passages_document_id",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name="pk_knowledge_passages"),
        if_not_exists=True,
    )
    for columns in (("document_id", "build"), ("workspace_id", "agent")):
        name = f"ix_knowledge_passages_{'_'.join(columns)}"
        op.create_index(name, "knowledge_passages", list(columns), if_not_exists=True)
