"""Draining: whether the server is about to stop this process."""

from __future__ import annotations

from collections.abc import Callable


def _always() -> bool:
    return True


_alive: Callable[[], bool] = _always


def watch(alive: Callable[[], bool]) -> None:
    """Set the function that returns whether the process is to keep running. Called once per worker, after the fork."""
    global _alive
    _alive = alive


def draining() -> bool:
    """Return whether the process is stopping: it takes no new work, and has until the graceful time-out."""
    return not _alive()
