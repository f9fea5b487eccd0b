"""Watch over the audit: its verification in the background, a piece at a time."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from service.audit.verify import Verifier
from service.errors import DatabaseUnavailable, NotFound
from service.store import audit as rows
from service.store.database import Database

log = logging.getLogger("slipway.audit")
PIECE_SECONDS = 0.1  # of verifying, each …
PAUSE_SECONDS = 15.0  # … of these
ROUND_SECONDS = 900.0  # from the end of a round over all workspaces to the next one


class AuditWatch:
    """Verifies all workspaces, round after round. One per web process; `told` whether the audit is intact.

    After a fault it is not, until a whole round has found none.
    """

    def __init__(self, db: Database, told: Callable[[bool], object]) -> None:
        self._db = db
        self._told = told
        self._busy = threading.Lock()
        self._next = time.monotonic() + PAUSE_SECONDS * random.random()
        self._todo: list[str] = []  # workspaces of this round
        self._after = 0  # sequence number up to which the first of them is verified
        self._faults = 0  # of this round
        self.intact: bool | None = None  # as told last; None: no round has ended

    def look_in_background(self) -> None:
        """Verify the next piece in a thread, where it is time to."""
        if time.monotonic() > self._next and not self._busy.locked():
            threading.Thread(target=self._look, name="audit-watch", daemon=True).start()

    def look(self) -> None:
        """Verify the next piece. Raises `DatabaseUnavailable`."""
        if not self._todo:
            self._todo, self._after, self._faults = self._db.query(rows.workspaces), 0, 0
        if self._todo:
            self._verify(self._todo[0])
        over = not self._todo
        if over and not self._faults:
            self._tell(True)
        self._next = time.monotonic() + (ROUND_SECONDS if over else PAUSE_SECONDS)

    def _verify(self, workspace_id: str) -> None:
        found = Verifier(self._db, workspace_id, seconds=PIECE_SECONDS).verify(self._after)
        if found.first_fault is not None:
            self._faults += 1
            self._tell(False)
            log.error("audit_broken", extra={"workspace": workspace_id, **found.first_fault._asdict()})
        elif found.partial:
            self._after = found.head.seq
            return
        self._after = 0
        del self._todo[0]

    def _tell(self, intact: bool) -> None:
        self.intact = intact
        self._told(intact)

    def _look(self) -> None:
        with self._busy:
            try:
                self.look()
            except (DatabaseUnavailable, NotFound):  # tried again at the next sweep
                pass
            except Exception:
                self._next = time.monotonic() + ROUND_SECONDS
                log.exception("audit_watch_failed")
