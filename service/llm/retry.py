"""Model client with retries and a circuit breaker per model."""

from __future__ import annotations

import copy
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from typing import NamedTuple

from service.errors import (
    ModelError,
    ModelInterrupted,
    ModelKeyRefused,
    ModelRateLimited,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    RunCancelled,
    SlipwayError,
)
from service.llm.breaker import Breaker, BreakerPermit, BreakerState
from service.llm.client import ModelCall, ModelClient, ModelReply, ModelRequest, TextDelta
from service.llm.headroom import headroom
from service.observe.observer import CALLER_LEFT, ModelAttempt

FIRST_PAUSE = 0.25  # seconds; doubled with each attempt
MAX_PAUSE = 8.0
RETRIED = (ModelUnavailable, ModelTimeout, ModelInterrupted)
HEALTHY = (ModelRejected, ModelRateLimited, ModelKeyRefused)


class Provider(NamedTuple):
    """Name of a provider. `has_next`: another one takes calls at once that it limits or does not answer in time."""

    name: str = ""
    has_next: bool = False


ONLY = Provider()


class RetryingClient:
    """`ModelClient` around another. Retries only before the first piece of text and within the call's deadline.

    `retries` counts attempts after the first; `on_attempt` is called after each attempt, in the calling thread.
    """

    def __init__(
        self,
        inner: ModelClient,
        retries: int,
        breaker_failures: int,
        breaker_recovery: float,
        on_attempt: Callable[[ModelAttempt], None],
        provider: Provider = ONLY,
    ) -> None:
        self._inner = inner
        self._retries = retries
        self._failures = breaker_failures
        self._recovery = breaker_recovery
        self._on_attempt = on_attempt
        self._provider = provider
        self._breakers: dict[str, Breaker] = {}
        self._lock = threading.Lock()

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]:
        """See `ModelClient`. Raises `ModelUnavailable` at once while the model's breaker is open."""
        breaker = self.breaker(request.model)
        number = 1
        while True:
            permit = breaker.allow()
            with closing(self._attempt(request, call, number, breaker, permit)) as attempt:
                try:
                    first = next(attempt)
                except StopIteration as end:
                    reply: ModelReply = end.value  # complete without text, such as a tool call
                    return self._told(number, reply)
                except ModelError as error:
                    pause = self._pause(error, request, call, number)
                else:
                    if permit.probe:
                        breaker.record_success(
                            permit
                        )  # text arrived: close the breaker before the answer ends
                    call.progress.first_at = time.perf_counter()
                    yield first
                    reply = yield from attempt
                    return self._told(number, reply)
            call.sleep(pause)
            if call.aborted:
                raise RunCancelled()
            call.begin_retry()
            number += 1

    def around(self, inner: ModelClient) -> RetryingClient:
        """Return a client with the same retries and breakers around another."""
        other = copy.copy(self)
        other._inner = inner
        return other

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        return self._inner.count_tokens(request, call)

    def close(self) -> None:
        self._inner.close()

    def ping(self) -> None:
        self._inner.ping()

    def breakers(self) -> list[BreakerState]:
        """List the breakers of the models that were called."""
        with self._lock:
            known = sorted(self._breakers.items())
        name = self._provider.name
        return [BreakerState(model, breaker.state, breaker.retry_after, name) for model, breaker in known]

    def breaker(self, model: str) -> Breaker:
        """Return the breaker of a model; /ready and the metrics read its `state` and `retry_after`."""
        with self._lock:
            if model not in self._breakers:
                self._breakers[model] = Breaker(model, self._failures, self._recovery)
            return self._breakers[model]

    def _attempt(
        self, request: ModelRequest, call: ModelCall, number: int, breaker: Breaker, permit: BreakerPermit
    ) -> Generator[TextDelta, None, ModelReply]:
        """Make one attempt; report its outcome to the breaker and the observer on every exit."""
        began = time.perf_counter()
        reply: ModelReply | None = None
        code: str | None = CALLER_LEFT
        verdict = breaker.release
        try:
            reply = yield from self._inner.create(request, call)
            code, verdict = None, breaker.record_success
            return reply
        except SlipwayError as error:
            code = error.code
            if _is_models_fault(error, call):
                verdict = breaker.record_failure
            raise
        finally:
            verdict(permit)
            progress = call.progress
            usage = reply.usage if reply else progress.usage
            ms = (time.perf_counter() - began) * 1000
            first_ms = (progress.first_at - began) * 1000 if progress.first_at and request.stream else None
            is_open = breaker.state == "open"
            self._on_attempt(
                ModelAttempt(
                    *(request.model, number, reply is not None, ms, usage, code, request.stream, is_open),
                    provider=self._provider.name,
                    first_ms=first_ms,
                    headroom=headroom(progress.limits) if progress.limits else (),
                )
            )

    def _told(self, attempt: int, reply: ModelReply) -> ModelReply:
        """Return the reply with the number of its attempt and its provider."""
        about = (attempt, self._provider.name)
        if (reply.attempts, reply.provider) == about:
            return reply
        return replace(reply, attempts=attempt, provider=self._provider.name)

    def _pause(self, error: ModelError, request: ModelRequest, call: ModelCall, number: int) -> float:
        """Return the seconds until the next attempt. Raises the error when there is to be none."""
        pause: float = min(FIRST_PAUSE * 2 ** (number - 1), MAX_PAUSE) * random.uniform(0.5, 1.0)
        if error.retry_after is not None:
            pause = error.retry_after + random.uniform(
                0, FIRST_PAUSE
            )  # jitter: spread clients given the same retry_after
        if self._provider.has_next and isinstance(error, ModelTimeout | ModelRateLimited):
            raise error
        if number > self._retries or not may_retry(error, request, call) or pause >= call.remaining():
            raise error
        return pause


def may_retry(error: ModelError, request: ModelRequest, call: ModelCall) -> bool:
    """Return whether to retry; False if the failed attempt is already billed, since a retry would cost twice."""
    if isinstance(error, ModelKeyRefused) or not isinstance(error, RETRIED) or call.aborted:
        return False
    if isinstance(error, ModelTimeout):
        return call.progress.usage is None
    return not (isinstance(error, ModelInterrupted) and request.stream)


def _is_models_fault(error: SlipwayError, call: ModelCall) -> bool:
    """Return whether an error counts against the model.

    Not counted: its 4xx, a deadline of ours that was too near, the time-out of an agent that waits less than others.
    """
    if isinstance(error, ModelTimeout):
        return call.remaining() > 0 and not call.impatient
    return isinstance(error, ModelError) and not isinstance(error, HEALTHY)
