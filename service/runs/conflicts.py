"""Conflict policy for turns in a busy session: reject the new one, queue it, or interrupt the running one.

Of turns that interrupt each other the newest wins: the running one is cancelled, and an older one that has not begun is
refused. All wait for a bounded time, each in a place of its process.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from service.errors import NotFound, RunFinished, SessionBusy
from service.ids import new_id
from service.runs.bulkhead import Bulkhead
from service.runs.cancel import Cancellation
from service.runs.queries import RunQueries
from service.sessions import Sessions
from service.types import Caller, OnConflict, RunRequest

T = TypeVar("T")
FIRST_PAUSE = 0.05  # seconds between attempts to begin, times 1.5 each, up to the longest
MAX_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Resolves session conflicts. One per process.

    `default`: policy of requests without one; `seconds`: the longest a turn waits.
    """

    sessions: Sessions
    queries: RunQueries
    cancellation: Cancellation
    bulkhead: Bulkhead
    default: OnConflict
    seconds: float

    def policy_of(self, request: RunRequest) -> OnConflict:
        """Return the request's policy for a busy session."""
        return request.on_conflict or self.default

    def interrupted_by(self, request: RunRequest) -> list[str]:
        """Return the run a request interrupts, if any, to be cancelled once the request is accepted."""
        if self.policy_of(request) != "interrupt" or request.session_id is None:
            return []
        return [turn["id"] for turn in self.sessions.under_way(request.session_id) if turn["holds"]]

    def cancel(self, run_ids: Iterable[str]) -> None:
        """Cancel runs that may have ended meanwhile."""
        for run_id in run_ids:
            with suppress(RunFinished, NotFound):
                self.cancellation.cancel(self.queries.get(run_id))

    def in_turn(self, caller: Caller, request: RunRequest, start: Callable[[], T]) -> T:
        """Call `start`, repeatedly while its session is busy if the request waits. Raises `SessionBusy`."""
        end, pause = time.monotonic() + self.seconds, FIRST_PAUSE
        policy = self.policy_of(request)
        interruption = Interruption(self, self.sessions, request) if policy == "interrupt" else None
        while True:
            try:
                return start()
            except SessionBusy:
                if policy == "reject" or time.monotonic() + pause > end:
                    raise
            with self.bulkhead.take(caller.user_id):
                if interruption is not None:
                    interruption.stop()
                time.sleep(pause * random.uniform(0.7, 1.0))
            pause = min(pause * 1.5, MAX_PAUSE)


class Interruption:
    """Interruption of a session's running turn by one new turn; created when the new turn arrives.

    Turns queued by then keep their place, so one of them may still run first; newer turns are not touched.
    """

    def __init__(self, conflicts: Conflicts, sessions: Sessions, request: RunRequest) -> None:
        self._conflicts = conflicts
        self._sessions = sessions
        self._session_id = request.session_id or ""
        self._asked_at = new_id("run")  # older runs have smaller ids
        self._done: set[str] = set()  # runs cancelled already, or left alone
        self._first = True

    def stop(self) -> None:
        """Cancel the run that holds the session. Raises `SessionBusy` if a newer turn has taken it."""
        turns = self._sessions.under_way(self._session_id)
        if self._first:
            self._done |= {turn["id"] for turn in turns if not turn["holds"]}
        self._first = False
        for run_id in (turn["id"] for turn in turns if turn["holds"] and turn["id"] not in self._done):
            if run_id > self._asked_at:
                raise SessionBusy("A newer turn has taken this session.", retry_after=1)
            self._done.add(run_id)
            self._conflicts.cancel([run_id])
