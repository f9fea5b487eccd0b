"""The Batches API, as the rest of the house knows it: many calls handed over at once, answered within a day."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple, Protocol

from service.llm.client import ModelCall, ModelReply, ModelRequest

SENT_FIELDS = tuple(field.name for field in fields(ModelRequest))


class BatchState(NamedTuple):
    """A batch at the provider: how many calls it has, and whether all of them are over."""

    id: str
    size: int
    ended: bool


class BatchClient(Protocol):
    """Raises as `ModelClient` does. Afterwards `call.progress.billable` tells whether a batch may have begun."""

    def submit(self, requests: Mapping[str, ModelRequest], call: ModelCall) -> str:
        """Hand calls over, by custom id (1 to 64 of A-Z a-z 0-9 _ -); the batch's id at the provider."""

    def batch(self, batch_id: str, call: ModelCall) -> BatchState: ...

    def batches_since(self, ms: int, call: ModelCall) -> list[BatchState]:
        """Every batch made from `ms` on."""

    def results(self, batch_id: str, call: ModelCall) -> Iterator[tuple[str, ModelReply | None]]:
        """Custom id and reply of each call of a batch that has ended, in any order; None: there is no answer."""

    def close(self) -> None: ...


def as_json(request: ModelRequest) -> dict[str, Any]:
    """A request as a row keeps it. The inverse of `of_json`."""
    return {name: _plain(getattr(request, name)) for name in SENT_FIELDS}


def of_json(kept: Mapping[str, Any]) -> ModelRequest:
    return ModelRequest(**kept)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
