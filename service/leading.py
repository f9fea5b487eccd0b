"""Who leads: of a process's request threads one at a time takes what comes next and serves it, the others wait.

A request that never waits is served from its first byte to its last by one thread that nobody disturbs, as in an event
loop. Before a wait, or anything else that takes long, that thread calls `step_aside`, so that another one leads. To
forget it costs time and nothing else: the server notices a leader that is kept busy, and has another one lead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable


class _Own(threading.local):
    aside: Callable[[], None] | None = None


_own = _Own()


def lead(aside: Callable[[], None] | None) -> None:
    """This thread leads from now on, and `aside` has another one lead; None: it leads no more."""
    _own.aside = aside


def step_aside() -> None:
    """Nothing happens in a thread that does not lead."""
    aside = _own.aside
    if aside is not None:
        _own.aside = None
        aside()
