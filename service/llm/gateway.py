"""Model client of a run whose calls another Slipway holds and settles: its refusals are those of the run."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager

from service.errors import BudgetExceeded, ModelError, RunCancelled, RunLimit, SlipwayError
from service.llm.client import ModelCall, ModelClient, ModelReply, ModelRequest, TextDelta

# Refusals of the run and not of the call, by HTTP status.
_REFUSALS: Mapping[int | None, tuple[type[SlipwayError], str]] = {
    401: (RunCancelled, "The run has ended, or another attempt executes it."),
    402: (BudgetExceeded, "A spending cap of the run is reached."),
    403: (RunLimit, "The run may make no more model calls."),
}


class GatewayClient:
    """`ModelClient` around another, with the token of a run.

    Raises `BudgetExceeded` at a cap, `RunLimit` after the run's last call, `RunCancelled` where the token is refused.
    """

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
    except ModelError:
        if (refusal := _REFUSALS.get(call.progress.refusal)) is None:
            raise
        error, detail = refusal
        raise error(detail) from None
