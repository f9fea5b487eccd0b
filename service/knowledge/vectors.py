"""Meaning of passages: vectors of an embedding model, and the fusion of a ranking by them with one by words."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from hashlib import sha256
from typing import Protocol

from service.knowledge.passages import Passage

BATCH = 32  # texts in one request for vectors
MAX_QUERY = 2_000  # characters of a query that the model reads
RANK_OFFSET = 60  # of reciprocal rank fusion: the k of Cormack, Clarke and Büttcher (2009)


class Embedder(Protocol):
    """Embedding model. `name` changes with the model: vectors of different models cannot be compared."""

    name: str

    def embed(self, text: str) -> array[float] | None:
        """Return a query's unit vector, or None on failure. Never raises."""

    def embed_all(self, texts: Sequence[str]) -> list[array[float]] | None:
        """Return the unit vectors of passages, or None on failure. Never raises."""


def digest(title: str, text: str) -> str:
    """Return what the vector of a passage is found by."""
    return sha256(f"{title}\n{text}".encode()).hexdigest()


def embedded_text(title: str, text: str) -> str:
    """Return the text that stands for a passage: its headings say what it is about."""
    return f"{title}\n\n{text}"


def fused(rankings: Sequence[Sequence[Passage]]) -> list[Passage]:
    """Fuse rankings, each best first, by reciprocal ranks; the best of all first."""
    scores: dict[tuple[str, str], float] = {}
    found: dict[tuple[str, str], Passage] = {}
    for ranking in rankings:
        for rank, one in enumerate(ranking, 1):
            key = (one.uri, one.text)
            found.setdefault(key, one)
            scores[key] = scores.get(key, 0.0) + 1 / (RANK_OFFSET + rank)
    return [found[key]._replace(score=scores[key]) for key in sorted(scores, key=lambda key: -scores[key])]
