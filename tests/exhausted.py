"""A system whose limit of threads is reached."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def _refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


@contextmanager
def no_threads(times: int = 1) -> Iterator[range]:
    """Let no thread of this process start; yields a range of `times`, for a loop."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threading.Thread, "start", _refuse)
        yield range(times)
