"""Bounds of the open WebSockets of one process: in all, per user, and of those that have not signed in.

Each also holds a place of a reader in the bulkhead, as it holds a thread.
"""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial

from service.observe.metrics import Metrics
from service.runs.bulkhead import Bulkhead

_WHAT = "WebSockets of yours are open"


class Seats:
    """Seats of one process: a quarter of the bulkhead's places, half of them for one user."""

    def __init__(self, bulkhead: Bulkhead, metrics: Metrics) -> None:
        total = max(2, bulkhead.total // 4)
        strangers = max(1, total // 4)
        self._bulkhead = bulkhead
        self._metrics = metrics
        self._signed_in = Bulkhead(total, max(2, total // 2), _WHAT)
        self._strangers = Bulkhead(
            strangers, strangers + 1, _WHAT
        )  # no user's bound: they have none in common

    def take(self, user_id: str | None) -> ExitStack:
        """Take a seat, which is released as the stack is closed. None: the user is still to sign in.

        Raises `RateLimited` at the user's bound, and `Overloaded`.
        """
        seats = self._strangers if user_id is None else self._signed_in
        with ExitStack() as held:
            held.enter_context(seats.take(user_id or ""))
            held.enter_context(self._bulkhead.take(user_id or "", reads=True))
            self._metrics.socket(1)
            held.callback(partial(self._metrics.socket, -1))
            return held.pop_all()
