"""Checks of a response under way: once its reader's log-in or key has ended, the response ends too."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from service.errors import InvalidToken
from service.infra.redis_trip import Trip
from service.web.current import Request, current

T = TypeVar("T")
SECONDS = 1.0  # between two checks of one response, each a round trip to Redis


def still_admitted(request: Request) -> Callable[[], bool]:
    """Build the check of an admitted request, which is called outside of it; most calls repeat the last result.

    A key whose user has another role is refused too: its next request is admitted with that role. The check raises
    `DatabaseUnavailable` when neither store can say.
    """
    auth, redis_store = request.services.auth, request.services.infra.redis_store
    caller, key = request.caller, request.key
    admitted, due = True, time.monotonic() + SECONDS

    def check() -> bool:
        nonlocal admitted, due
        if admitted and time.monotonic() >= due:
            due = time.monotonic() + SECONDS
            admitted = holds()
        return admitted

    def holds() -> bool:
        try:
            if key is not None:
                return auth.keys.caller(key) == caller
            trip = Trip(redis_store)
            trip.add(auth.revocations.call(caller.family or ""))
            trip.send()
        except InvalidToken:
            return False
        return True

    return check


def while_admitted(parts: Iterable[T]) -> Iterator[T]:
    """Yield parts of the current request's response. Raises `InvalidToken` once its log-in or key has ended.

    The server then aborts the response: clients see that it is incomplete.
    """
    may_read = still_admitted(current())

    def checked() -> Iterator[T]:
        for part in parts:
            if not may_read():
                raise InvalidToken("This log-in has ended.")
            yield part

    return checked()
