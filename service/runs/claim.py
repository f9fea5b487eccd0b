"""Claim of a run on what all workers share in Redis: the flight of its question, and its user's count of runs."""

from __future__ import annotations

from service.cache.lookup import Lookup
from service.infra.redis_trip import Trip
from service.usage.concurrency import CountedRun


class Claim:
    """Claim of one run: taken in one round trip, and given back in one, as a context manager at the end of the block.

    The trip may bring calls of its own, which come first. If one of them refuses the run, nothing is taken, or it is
    given back before the error is raised. A run that finds an answer, or another that is making it, is not counted.
    """

    def __init__(self, trip: Trip, lookup: Lookup, counted: CountedRun) -> None:
        self.lookup = lookup
        self._trip = trip
        self._counted = counted
        lookup.ask(trip)
        counted.ask(trip)
        try:
            trip.send()
        except BaseException:
            lookup.read()
            self.end()
            raise
        lookup.read()

    def __enter__(self) -> Claim:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def enter(self) -> None:
        """Begin to execute the run. Raises `RateLimited` at its user's limit of concurrent runs."""
        self._counted.enter(self._trip)

    def leave(self) -> None:
        """End the run's count: another worker executes it, and its look-up goes on."""
        self._counted.leave(self._trip)
        self._trip.send()

    def end(self) -> None:
        """Give everything back. Idempotent."""
        self._counted.leave(self._trip)
        self.lookup.end(self._trip)
        self._trip.send()
