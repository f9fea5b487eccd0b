"""Notices that the code was edited. Agents' folders are none of it: the service reads those again by itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

LOOK_SECONDS = 1.0
PACKAGES = ("service", "config")
FILES = ("wsgi.py", "worker.py", "gunicorn.conf.py")


class Code:
    """The Python files of `root`, as they were when last looked at."""

    def __init__(self, root: Path = Path()) -> None:
        self._root = root
        self._seen = dict(self._look())
        self._next = time.monotonic() + LOOK_SECONDS

    def changed(self) -> bool:
        """Whether a file was written, added or removed since the last True; looked at once a second at most."""
        if time.monotonic() < self._next:
            return False
        before, self._seen = self._seen, dict(self._look())
        self._next = time.monotonic() + LOOK_SECONDS
        return before != self._seen

    def _look(self) -> Iterator[tuple[Path, int]]:
        found = [path for package in PACKAGES for path in (self._root / package).rglob("*.py")]
        for path in (*found, *(self._root / name for name in FILES)):
            try:
                yield path, path.stat().st_mtime_ns
            except FileNotFoundError:  # an editor is just replacing it
                continue
