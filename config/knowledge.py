"""Define the settings of knowledge: bounds of a workspace's documents, and the endpoint for searches by meaning."""

from __future__ import annotations

from pydantic import Field, SecretStr

from config.observe import Observe

MIB = 1024 * 1024


class Knowledge(Observe):
    """Fields of `config.base.Settings` about knowledge."""

    knowledge_documents: int = Field(
        1_000, ge=0, description="Most documents of one workspace, over all agents"
    )
    knowledge_bytes: int = Field(
        200 * MIB, ge=0, description="Most bytes of text that the documents of one workspace have together"
    )
    knowledge_passages: int = Field(
        100_000, ge=0, description="Most passages that the documents of one workspace make together"
    )
    knowledge_embeddings_url: str = Field(
        "",
        repr=False,
        description="Endpoint of OpenAI's embeddings API, such as `https://host/v1/embeddings`; when set, and on "
        "PostgreSQL with pgvector, knowledge is searched by meaning too; see docs/knowledge.md",
    )
    knowledge_embeddings_key: SecretStr = Field(
        SecretStr(""), description="Key of that endpoint, if it needs one"
    )
    knowledge_embeddings_model: str = Field(
        "text-embedding-3-small",
        min_length=1,
        max_length=128,
        description="Embedding model; it needs a price, see docs/knowledge.md",
    )
