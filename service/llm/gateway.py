"""Model client of a run whose calls another Slipway holds and settles: its refusals are those of the run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager

from service.errors import BudgetExceeded, ModelKeyRefused, ModelRejected, RunCancelled
from service.llm.client import ModelCall, ModelClient, ModelReply, ModelRequest, TextDelta

SPENT = 402  # a cap is reached


class GatewayClient:
    """`ModelClient` around another. Raises `BudgetExceeded` at a cap, `RunCancelled` where the run token is refused."""

    def __init__(self, inner: ModelClient) -> None:
        self._inner = inner

    def create(self, request: ModelRequest, call: ModelCall) -> Generator[TextDelta, None, ModelReply]:
        with _refusals_of_the_run(call):
            return (yield from self._inner.create(request, call))

    def count_tokens(self, request: ModelRequest, call: ModelCall) -> int:
        with _refusals_of_the_run(call):
            return self._inner.count_tokens(request, call)

    def ping(self) -> None:
        self._inner.ping()

    def close(self) -> None:
        self._inner.close()


@contextmanager
def _refusals_of_the_run(call: ModelCall) -> Iterator[None]:
    try:
        yield
    except ModelKeyRefused:
        raise RunCancelled("The run has ended, or another attempt executes it.") from None
    except ModelRejected:
        if call.progress.refusal == SPENT:
            raise BudgetExceeded("A spending cap of the run is reached.") from None
        raise
