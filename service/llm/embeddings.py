"""Embeddings from an endpoint that speaks OpenAI's embeddings API; `service.embeddings` pays for them."""

from __future__ import annotations

import logging
import math
import time
from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import httpx2

from service.llm.call_errors import NEVER_SENT
from service.llm.client import ModelCall
from service.llm.transport import ModelTransport, carrying

log = logging.getLogger("slipway.embeddings")

SECONDS = 1.0  # longest wait for one vector: a slower cache saves nothing
BATCH_SECONDS = 30.0  # longest wait for several
PAUSE = 10.0  # seconds without queries after a failure
MAX_SIZE = 4_096  # dimensions of a vector
MAX_BYTES = 1024 * 1024  # of an answer: `MAX_SIZE` numbers in full decimal notation
MAX_CONNECTIONS = 64
MAX_TOKENS = 2**53  # of a report: a larger number is none

# Raised for JSON of another shape, for numbers beyond floats, and for JSON that is too deep.
_NO_ANSWER = (ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError)


class Embedded(NamedTuple):
    """Answer to one call: unit vectors in the order of their texts, all of one size; None without.

    `tokens` as the endpoint reports them; `billable`: a call without vectors may be charged all the same.
    """

    vectors: list[array[float]] | None
    tokens: int | None = None
    billable: bool = True


class HttpEmbedder:
    """Client of the endpoint `url`, such as `https://host/v1/embeddings`. `name` is the model."""

    def __init__(self, url: str, key: str, model: str) -> None:
        self.name = model
        headers = {"Accept-Encoding": "identity"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        self._url = url
        transport = ModelTransport(MAX_CONNECTIONS)
        self._client = httpx2.Client(transport=transport, timeout=SECONDS, headers=headers, trust_env=False)
        self._retry_at = 0.0

    @property
    def rests(self) -> bool:
        """Return whether a call failed less than `PAUSE` seconds ago."""
        return time.monotonic() < self._retry_at

    def ask(self, texts: Sequence[str], seconds: float) -> Embedded:
        """Ask for the vectors of texts, once, and wait `seconds` in all. Never raises."""
        call = _call(seconds, len(texts))
        failed, tokens = "", None
        try:
            with carrying(call):
                body = {"model": self.name, "input": texts[0] if len(texts) == 1 else list(texts)}
                answer = self._client.post(self._url, json=body, timeout=seconds)
            if answer.is_success:
                told = answer.json()
                tokens = _tokens(told)
                return Embedded(_in_order(told["data"], len(texts)), tokens)
            call.progress.refused(answer.status_code)
            failed = str(answer.status_code)
        except NEVER_SENT as error:
            call.progress.billable = False
            failed = type(error).__name__
        except (httpx2.HTTPError, *_NO_ANSWER) as error:
            failed = type(error).__name__
        self._retry_at = time.monotonic() + PAUSE
        log.warning("embedding_failed", extra={"error": failed})
        return Embedded(None, tokens, call.progress.billable)


def _tokens(answer: dict[str, Any]) -> int | None:
    """Return the tokens that an answer reports; None: it reports none."""
    usage = answer.get("usage")
    found = usage.get("prompt_tokens", usage.get("total_tokens")) if isinstance(usage, dict) else None
    is_count = isinstance(found, int) and not isinstance(found, bool) and 0 < found < MAX_TOKENS
    return found if is_count else None


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
    call.progress.billable = True  # so it is sent once
    return call


def unit(numbers: list[float]) -> array[float]:
    """Normalise a vector to length 1, so that a dot product is the cosine. Raises `ValueError`."""
    length = math.hypot(*numbers)
    if not 0 < len(numbers) <= MAX_SIZE or not math.isfinite(length) or length == 0:
        raise ValueError("not a vector")
    return array("f", [number / length for number in numbers])
