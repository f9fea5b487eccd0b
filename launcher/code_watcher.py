"""Code watcher for reload. Agents' folders are not watched: the service reloads those itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

POLL_SECONDS = 1.0
PACKAGES = ("service", "config")
FILES = ("wsgi.py", "worker.py", "gunicorn.conf.py")


class CodeWatcher:
    """Modification times of the Python files of `root` at the last scan."""

    def __init__(self, root: Path = Path()) -> None:
        self._root = root
        self._mtimes = dict(self._scan())
        self._next = time.monotonic() + POLL_SECONDS

    def changed(self) -> bool:
        """Check whether a file was written, added or removed since the last scan; scans once a second at most."""
        if time.monotonic() < self._next:
            return False
        before, self._mtimes = self._mtimes, dict(self._scan())
        self._next = time.monotonic() + POLL_SECONDS
        return before != self._mtimes

    def _scan(self) -> Iterator[tuple[Path, int]]:
        found = [path for package in PACKAGES for path in (self._root / package).rglob("*.py")]
        for path in (*found, *(self._root / name for name in FILES)):
            try:
                yield path, path.stat().st_mtime_ns
            except FileNotFoundError:  # an editor is replacing it
                continue
