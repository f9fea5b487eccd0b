"""Model client over several providers of the same models: the next one takes the calls of one that is away."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import Any

from service.errors import (
    ModelError,
    ModelInterrupted,
    ModelKeyRefused,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
    PromptTooLong,
    RunCancelled,
)
from service.llm.breaker import BreakerState
from service.llm.client import ModelCall, ModelReply, ModelRequest
from service.llm.retry import RetryingClient, may_retry

AWAY = (ModelUnavailable, ModelTimeout, ModelInterrupted)
NOT_FOUND = 404  # the provider does not have the model


class FallbackClient:
    """`ModelClient` over others, in their order, within the deadline of one call.

    The next one is asked only before the first piece of an answer, and after `ModelCall.begin_retry`, which settles
    what the one before may bill.
    """

    def __init__(self, clients: Sequence[RetryingClient]) -> None:
        self._clients = clients

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[Any, None, ModelReply]:
        away: ModelError | None = None
        for client in self._clients:
            if away is not None:
                call.begin_retry()
            with closing(client.create(request, call)) as answer:
                try:
                    first = next(answer)
                except StopIteration as end:
                    reply: ModelReply = end.value
                    return reply
                except ModelError as error:
                    away = self._passed_on(error, away, client, request, call)
                else:
                    yield first
                    return (yield from answer)
            if call.aborted:
                raise RunCancelled()
        raise AssertionError("the last provider answers or raises")

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        """Count by the first provider that can."""
        *others, last = self._clients
        for client in others:
            try:
                return client.count_tokens(request, call)
            except AWAY:
                if call.aborted or not call.remaining():
                    raise
        return last.count_tokens(request, call)

    def ping(self) -> None:
        """Raise when no provider can be reached."""
        *others, last = self._clients
        for client in others:
            try:
                return client.ping()
            except ModelError:
                pass
        last.ping()

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def breakers(self) -> list[BreakerState]:
        return [state for client in self._clients for state in client.breakers()]

    def _passed_on(
        self,
        error: ModelError,
        away: ModelError | None,
        client: RetryingClient,
        request: ModelRequest,
        call: ModelCall,
    ) -> ModelError:
        """Return the error to raise if no other provider answers. Raises it where none is to be asked.

        A request is at fault only where the first provider says so (`away`: the error of an earlier one): another may
        not have the model, or not under the name it is asked for.
        """
        rejected = isinstance(error, ModelRejected) and not isinstance(error, PromptTooLong)
        told = away if rejected and away is not None else error
        missing = rejected and call.progress.refusal == NOT_FOUND
        may = missing or isinstance(error, ModelKeyRefused) or may_retry(error, request, call)
        if client is self._clients[-1] or not may or call.aborted or not call.remaining():
            raise told
        return told
