"""Batch client protocol: many calls submitted at once, answered within a day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

from service.errors import ModelRejected, ModelUnavailable
from service.llm.client import ModelCall, ModelReply, ModelRequest

SENT_FIELDS = tuple(field.name for field in fields(ModelRequest))


class BatchState(NamedTuple):
    """State of a batch at the provider: its number of calls, and whether all of them have ended."""

    id: str
    size: int
    ended: bool


class BatchClient(Protocol):
    """Batches API client. Raises as `ModelClient` does; `call.progress.billable` then tells if a batch may exist."""

    def submit(self, requests: Mapping[str, ModelRequest], call: ModelCall) -> str:
        """Submit calls by custom id (1 to 64 of A-Z a-z 0-9 _ -); return the provider's batch id."""

    def batch(self, batch_id: str, call: ModelCall) -> BatchState: ...

    def batches_since(self, ms: int, call: ModelCall) -> list[BatchState]:
        """List the batches created from `ms` on (Unix time in milliseconds)."""

    def results(self, batch_id: str, call: ModelCall) -> Iterator[tuple[str, ModelReply | None]]:
        """Yield custom id and reply of each call of an ended batch, in any order; None: no answer."""

    def close(self) -> None: ...


class NoBatches:
    """`BatchClient` of providers without batches: their steps are called directly, at the usual price."""

    def submit(self, requests: Mapping[str, ModelRequest], call: ModelCall) -> str:
        raise ModelRejected("The model's provider has no batches")

    def batch(self, batch_id: str, call: ModelCall) -> BatchState:
        raise ModelUnavailable("The provider of this batch is not set up any more")

    def batches_since(self, ms: int, call: ModelCall) -> list[BatchState]:
        return []

    def results(self, batch_id: str, call: ModelCall) -> Iterator[tuple[str, ModelReply | None]]:
        raise ModelUnavailable("The provider of this batch is not set up any more")

    def close(self) -> None: ...


def as_json(request: ModelRequest) -> dict[str, Any]:
    """Convert a request to the JSON object stored in its row. Inverse of `of_json`."""
    return {name: _plain(getattr(request, name)) for name in SENT_FIELDS}


def of_json(encoded: Mapping[str, Any]) -> ModelRequest:
    return ModelRequest(**encoded)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
