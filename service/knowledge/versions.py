"""Version of a workspace's documents, as a part of the keys of cached answers: a change of one is a change of all."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict

from service.errors import DatabaseUnavailable
from service.store import knowledge as rows
from service.store.database import Database

FRESH_SECONDS = 1.0  # within which another process may still answer from the documents of before
AWAY_SECONDS = 5.0  # between two attempts at a database that is away; until then, the last version known
MOST = 4_096  # workspaces that a process remembers


class DocumentVersions:
    """Versions by workspace, read once in `FRESH_SECONDS`. Thread-safe."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        # By workspace: the version, and until when it is fresh.
        self._known: OrderedDict[str, tuple[int, float]] = OrderedDict()

    def of(self, workspace_id: str) -> int:
        """Return the version of a workspace's documents; 0 where there have never been any. Never raises."""
        with self._lock:
            version, until = self._known.get(workspace_id, (0, 0.0))
        if time.monotonic() < until:
            return version
        life = FRESH_SECONDS
        try:
            version = self._db.query(lambda tx: rows.version(tx, workspace_id), patience=0)
        except DatabaseUnavailable:
            life = AWAY_SECONDS
        with self._lock:
            self._known[workspace_id] = version, time.monotonic() + life
            self._known.move_to_end(workspace_id)
            if len(self._known) > MOST:
                self._known.popitem(last=False)
        return version

    def forget(self, workspace_id: str) -> None:
        """Read the version anew: this process has changed it."""
        with self._lock:
            self._known.pop(workspace_id, None)
