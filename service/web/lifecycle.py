"""Whether this process is about to stop. The server that runs the app says so; the app only asks."""

from __future__ import annotations

from collections.abc import Callable


def _always() -> bool:
    return True


_alive: Callable[[], bool] = _always


def watch(alive: Callable[[], bool]) -> None:
    """From now on `alive` tells whether the process goes on. Called once per worker, after the fork."""
    global _alive
    _alive = alive


def draining() -> bool:
    """The process takes no new work, and what is under way has until the graceful time-out."""
    return not _alive()
