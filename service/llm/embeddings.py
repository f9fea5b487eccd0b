"""Embeddings from an endpoint that speaks OpenAI's embeddings API, for the semantic cache and for knowledge."""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Sequence
from typing import Any, Protocol

import httpx2

from service.llm.client import ModelCall
from service.llm.transport import ModelTransport, carrying

log = logging.getLogger("slipway.embeddings")

SECONDS = 1.0  # longest wait for one vector: a slower cache saves nothing
BATCH_SECONDS = 30.0  # longest wait for several
PAUSE = 10.0  # seconds without requests after a failure
MAX_SIZE = 4_096  # dimensions of a vector
MAX_BYTES = 1024 * 1024  # of an answer: `MAX_SIZE` numbers in full decimal notation
MAX_CONNECTIONS = 64


class Embedder(Protocol):
    """Embedding model. `name` changes with the model: vectors of different models cannot be compared."""

    name: str

    def embed(self, text: str) -> array[float] | None:
        """Return the text's unit vector, or None on failure. Never raises."""


class HttpEmbedder:
    """Embedder over HTTP. `url` is the endpoint itself, such as `https://host/v1/embeddings`."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self.name = model
        headers = {"Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._url = url
        transport = ModelTransport(MAX_CONNECTIONS)
        self._client = httpx2.Client(transport=transport, timeout=SECONDS, headers=headers, trust_env=False)
        self._retry_at = 0.0

    def embed(self, text: str) -> array[float] | None:
        found = None if time.monotonic() < self._retry_at else self._vectors(text, 1, SECONDS)
        return None if found is None else found[0]

    def embed_all(self, texts: Sequence[str]) -> list[array[float]] | None:
        """Return the texts' unit vectors, all of one size, or None on failure. Never raises."""
        return self._vectors(list(texts), len(texts), BATCH_SECONDS)

    def _vectors(self, texts: str | list[str], count: int, seconds: float) -> list[array[float]] | None:
        try:
            with carrying(_call(seconds, count)):
                body = {"model": self.name, "input": texts}
                answer = self._client.post(self._url, json=body, timeout=seconds)
            answer.raise_for_status()
            return _in_order(answer.json()["data"], count)
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            self._retry_at = time.monotonic() + PAUSE
            log.warning("embedding_failed", extra={"error": type(error).__name__})
            return None


def _in_order(data: list[dict[str, Any]], count: int) -> list[array[float]]:
    """Return vectors in the order of their texts. Raises `ValueError` where one is missing or of another size."""
    found = [unit(one["embedding"]) for one in sorted(data, key=lambda one: one.get("index", 0))]
    if len(found) != count or len({len(vector) for vector in found}) > 1:
        raise ValueError("not one vector for each text")
    return found


def _call(seconds: float, count: int) -> ModelCall:
    """Make a call bounded to `seconds` in total, name look-up included, and `MAX_BYTES` for each vector."""
    call = ModelCall(time.monotonic() + seconds)
    call.answer_bytes = MAX_BYTES * count
    return call


def unit(numbers: list[float]) -> array[float]:
    """Normalise a vector to length 1, so that a dot product is the cosine. Raises `ValueError`."""
    length = math.hypot(*numbers)
    if not 0 < len(numbers) <= MAX_SIZE or not math.isfinite(length) or length == 0:
        raise ValueError("not a vector")
    return array("f", [number / length for number in numbers])
