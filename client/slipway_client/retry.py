"""Retry policy: how long to pause before the next try, or not to try again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from slipway_client.effects import Flow, Sleep
from slipway_client.errors import APIError, ConnectionFailed, SlipwayError

T = TypeVar("T")

FIRST_PAUSE = 0.5  # seconds
LONGEST_PAUSE = 15.0
LONGEST_RETRY_AFTER = 60.0  # a server that asks for more is told to the caller at once
RECONNECT_PAUSE = 1.0
RECONNECTS = 30  # tries in a row to take up a stream again, some seven minutes


@dataclass(frozen=True, slots=True)
class Retry:
    """`retries` after the first try, and no pauses beyond `seconds` in all."""

    retries: int = 4
    seconds: float = 120.0

    def pause(self, tries: int, paused: float, retry_after: float | None, chance: float) -> float | None:
        """Return seconds until the next try; None: give up.

        `tries` were made, with `paused` seconds between them. `chance` in [0, 1) spreads clients that failed together;
        a pause is never shorter than the server's `Retry-After`.
        """
        if tries > self.retries or (retry_after or 0) > LONGEST_RETRY_AFTER:
            return None
        grown: float = min(FIRST_PAUSE * 2.0 ** (tries - 1), LONGEST_PAUSE)
        pause = grown * (0.5 + chance / 2) if retry_after is None else retry_after + chance * FIRST_PAUSE
        return pause if paused + pause <= self.seconds else None


def reconnect_pause(quiet: int, retry_after: float | None, chance: float) -> float:
    """Return seconds before a stream is taken up again, after `quiet` connections in a row without an event."""
    grown: float = min(RECONNECT_PAUSE * 2.0 ** min(quiet, 10), LONGEST_PAUSE)
    return max(grown * (0.75 + chance / 4), min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def persist(policy: Retry, attempt: Callable[[], Flow[T]], again: Callable[[SlipwayError], bool]) -> Flow[T]:
    """Repeat `attempt` while it fails in a way that `again` says is worth it, as far as the policy goes."""
    tries, paused = 0, 0.0
    while True:
        tries += 1
        try:
            return (yield from attempt())
        except (ConnectionFailed, APIError) as failed:
            after = failed.retry_after if isinstance(failed, APIError) else None
            pause = policy.pause(tries, paused, after, random.random()) if again(failed) else None
            if pause is None:
                raise
        paused += pause
        yield Sleep(pause)
