"""Texts as vectors, from an endpoint that speaks OpenAI's embeddings API. Used for the cache alone."""

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

SECONDS = 1.0  # the longest wait: a cache that is slower than this saves nothing
PAUSE = 10.0  # seconds an endpoint that failed is left alone
MAX_SIZE = 4_096  # numbers of a vector
MAX_BYTES = 1024 * 1024  # of an answer: that many numbers, written out at length
MAX_CONNECTIONS = 64


class Embedder(Protocol):
    """`name` changes with the model: vectors of different models cannot be compared."""

    name: str

    def embed(self, text: str) -> array[float] | None:
        """The text as a vector of length 1; None when there is none to be had. Never raises."""


class HttpEmbedder:
    """`url` is the endpoint itself, such as `https://host/v1/embeddings`."""

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
    """Make a call with one request's bounds: its seconds in all, name look-up included, and its bytes."""
    call = ModelCall(time.monotonic() + SECONDS)
    call.answer_bytes = MAX_BYTES
    return call


def unit(numbers: list[float]) -> array[float]:
    """Of length 1, so that the cosine of two is the sum of their products. Raises `ValueError`."""
    length = math.hypot(*numbers)
    if not 0 < len(numbers) <= MAX_SIZE or not math.isfinite(length) or length == 0:
        raise ValueError("not a vector")
    return array("f", [number / length for number in numbers])
