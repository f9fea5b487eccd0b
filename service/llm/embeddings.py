"""Embeddings from an endpoint that speaks OpenAI's embeddings API. Used only by the semantic cache."""

from __future__ import annotations

import logging
import math
import time
from array import array
from typing import Protocol

import httpx2

from service.llm.client import ModelCall
from service.llm.transport import ModelTransport, carrying

log = logging.getLogger("slipway.embeddings")

SECONDS = 1.0  # longest wait: a slower cache saves nothing
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
        if time.monotonic() < self._retry_at:
            return None
        try:
            with carrying(_call()):
                answer = self._client.post(self._url, json={"model": self.name, "input": text})
            answer.raise_for_status()
            return unit(answer.json()["data"][0]["embedding"])
        except (httpx2.HTTPError, ValueError, KeyError, IndexError, TypeError) as error:
            self._retry_at = time.monotonic() + PAUSE
            log.warning("embedding_failed", extra={"error": type(error).__name__})
            return None


def _call() -> ModelCall:
    """Make a call bounded to `SECONDS` in total, name look-up included, and `MAX_BYTES`."""
    call = ModelCall(time.monotonic() + SECONDS)
    call.answer_bytes = MAX_BYTES
    return call


def unit(numbers: list[float]) -> array[float]:
    """Normalise a vector to length 1, so that a dot product is the cosine. Raises `ValueError`."""
    length = math.hypot(*numbers)
    if not 0 < len(numbers) <= MAX_SIZE or not math.isfinite(length) or length == 0:
        raise ValueError("not a vector")
    return array("f", [number / length for number in numbers])
