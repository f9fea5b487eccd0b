"""Meaning of passages: vectors of an embedding model, and the fusion of a ranking by them with one by words."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256
from typing import Literal, Protocol

from service.knowledge.passages import Passage

BATCH = 32  # texts in one request for vectors
MAX_QUERY = 2_000  # characters of a query that the model reads
WORDS_AT_LEAST = 3  # place of the best passage by words
RANK_OFFSET = 60  # of reciprocal rank fusion: the k of Cormack, Clarke and Büttcher (2009)


Why = Literal[
    "no_endpoint",
    "no_extension",
    "price_unknown",
    "cap_reached",
    "agent_stopped",
    "endpoint_away",
    "not_indexed",
]
REASONS: dict[Why, str] = {
    "no_endpoint": "KNOWLEDGE_EMBEDDINGS_URL is not set",
    "no_extension": "the database is not PostgreSQL with the extension vector (docs/knowledge.md)",
    "price_unknown": "the embedding model has no price: add its row to MODEL_PRICES (docs/knowledge.md)",
    "cap_reached": "a spending cap has no room for the embedding calls",
    "agent_stopped": "the agent is stopped",
    "endpoint_away": "the embedding endpoint gives no vectors",
    "not_indexed": "not all passages have vectors yet: run `flask knowledge index`",
}


class NoVectors(Exception):
    """Raised when texts get no vectors; searches go on as before. `why` is a code, `detail` a sentence about it."""

    def __init__(self, why: Why, detail: str = "") -> None:
        super().__init__(why)
        self.why: Why = why
        self.detail = detail or REASONS[why]


class Embedder(Protocol):
    """Embedding model, whose calls somebody pays. Vectors of models of different `name`s cannot be compared."""

    @property
    def name(self) -> str: ...

    def embed(self, text: str) -> array[float] | None:
        """Return a query's unit vector; None without one. Never raises."""

    def embed_all(self, texts: Sequence[str]) -> list[array[float]]:
        """Return the unit vectors of passages. Raises `NoVectors` and `DatabaseUnavailable`."""


class Embedders(Protocol):
    """Embedding model."""

    @property
    def name(self) -> str: ...

    def of_workspace(self, workspace_id: str, agent: str) -> Embedder:
        """Return the embedder that a workspace pays."""

    def refusal(self, workspace_id: str, agent: str, tokens: int) -> Why | None:
        """Return why a workspace can embed no text of so many tokens now; None: it can."""


def digest(title: str, text: str) -> str:
    """Return what the vector of a passage is found by."""
    return sha256(f"{title}\n{text}".encode()).hexdigest()


def embedded_text(title: str, text: str) -> str:
    """Return the text that stands for a passage: its headings say what it is about."""
    return f"{title}\n\n{text}"


def fused(words: Sequence[Passage], meaning: Sequence[Passage]) -> list[Passage]:
    """Fuse two rankings, each best first, by reciprocal ranks; the best of all first.

    Two places in the middle beat one at the top: what words find best, but meaning does not, is third at least.
    """
    scores: dict[tuple[str, str], float] = {}
    found: dict[tuple[str, str], Passage] = {}
    for ranking in (words, meaning):
        for rank, one in enumerate(ranking, 1):
            key = (one.uri, one.text)
            found.setdefault(key, one)
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_OFFSET + rank)
    order = sorted(scores, key=lambda key: -scores[key])
    for best in [(one.uri, one.text) for one in words[:1]]:
        if best in order[WORDS_AT_LEAST:]:
            order.remove(best)
            order.insert(WORDS_AT_LEAST - 1, best)
    return [found[key]._replace(score=scores[key]) for key in order]
