"""Model call that a client has written: its request, and the pieces of its answer on their way to the client."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service.cache.relayed import Freshness
from service.llm.relay import RelayedRequest


@dataclass(slots=True)
class RelayedCall:
    """Model call that a client has written, and the pieces of its answer that the client is to be given.

    `hang_up`: see `WatchedCall`. `freshness`: of a cached answer, if one is asked for. `kept`: the answer is stored, to
    be given again under an idempotency key.
    """

    request: RelayedRequest
    hang_up: Callable[[], None] = lambda: None
    freshness: Freshness | None = None
    kept: bool = False
    seconds: float = 0.0  # spent waiting for the model
    _pieces: list[bytes] = field(default_factory=list)

    def add(self, piece: bytes) -> None:
        self._pieces.append(piece)

    def take(self) -> list[bytes]:
        pieces, self._pieces = self._pieces, []
        return pieces
