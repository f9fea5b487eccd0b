"""Turns of one connection, between the thread that receives them and the one that executes them."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, NamedTuple

from service.errors import RunFinished, SessionBusy
from service.types import OnConflict, Run


class Turn(NamedTuple):
    """Message of a turn: its JSON, and its size in bytes."""

    body: Any
    size: int


class Turns:
    """One turn under way, and at most one that waits for it. A new token is taken before the next turn."""

    def __init__(self) -> None:
        self._change = threading.Condition()  # guards all below
        self._waiting: Turn | None = None
        self._token: str | None = None
        self._run: Run | None = None
        self._cancelled = False  # before its run has started
        self._ended = False
        self._answered = False  # the client may send its next turn, while this one is put away
        self.busy = False
        self.paused = False  # the run under way waits for a person or for money

    def offer(self, turn: Turn, policy: OnConflict) -> Run | None:
        """Take a turn; return the run that it interrupts, to be cancelled.

        Raises `SessionBusy` during another turn, unless it may wait and none does.
        """
        with self._change:
            under_way = self.busy and not self._answered
            if self._waiting is not None or (under_way and policy == "reject"):
                raise SessionBusy("Another turn of this connection is under way.")
            self._waiting = turn
            self._change.notify()
            return self._cancel() if under_way and policy == "interrupt" else None

    def cancel(self) -> Run | None:
        """Return the run under way, to be cancelled; None: it will be, once it has started. Raises `RunFinished`."""
        with self._change:
            if not self.busy or self._answered:
                raise RunFinished("No turn of this connection is under way.")
            return self._cancel()

    def _cancel(self) -> Run | None:
        self._cancelled = self._run is None
        return self._run

    def renew(self, token: str) -> None:
        with self._change:
            self._token = token
            self._change.notify()

    def end(self) -> None:
        """Let `take` return None, once nothing waits: a turn that has come is executed, whatever its client does."""
        with self._change:
            self._ended = True
            self._change.notify()

    def take(self) -> Turn | str | None:
        """Wait for a turn or a token; None: the connection has ended, and nothing waits."""
        with self._change:
            self._change.wait_for(lambda: self._ended or self._token is not None or self._waiting is not None)
            if self._token is not None:
                token, self._token = self._token, None
                return token
            if self._waiting is None:
                return None
            turn, self._waiting = self._waiting, None
            self.busy, self._run, self._cancelled, self._answered = True, None, False, False
            return turn

    def started(self, run: Run) -> bool:
        """Note the run of the turn under way. True: it was cancelled meanwhile."""
        with self._change:
            self._run = run
            return self._cancelled

    def answered(self) -> None:
        """Note that the last event of the turn under way is about to be sent."""
        with self._change:
            self._answered = True

    def done(self) -> None:
        with self._change:
            self.busy = self.paused = False
            self._run = None


def policy_of(body: Any, default: OnConflict) -> OnConflict:
    """Return `on_conflict` of a message; an invalid one rejects, and is refused as it is validated."""
    sent = body.get("on_conflict") if isinstance(body, Mapping) else None
    if sent is None:
        return default
    return sent if sent in ("queue", "interrupt") else "reject"
