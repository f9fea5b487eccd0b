"""Chain of audit rows: each link holds a hash over its row and the link before, so no row changes unnoticed.

Links are appended after the commit, so no transaction waits for the chain of its workspace. One process at a time does
it; any may.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping
from typing import Any

import orjson
import rfc8785

from service.errors import DatabaseUnavailable
from service.store import audit as rows
from service.store.database import Database, Row, Transaction
from service.types import now_ms

log = logging.getLogger("slipway.audit")
BATCH = 200  # links per transaction
GATHER = 0.1  # seconds from a commit to its link, for more rows to come
FIRST = "0" * 64  # hash before the first link
# Columns of a row in its hash. Another set of them needs another form of links.
_FIELDS = (
    *("id", "workspace_id", "at", "action", "actor", "user_id", "key_id", "subject"),
    *("address", "request_id", "result", "details"),
)


def hash_of(link: Mapping[str, Any], row: Row) -> str:
    """Hash a link: SHA-256 over the canonical JSON (RFC 8785) of its fields, the hash before, and its row.

    `row` has `details` as text; a row that is gone is hashed as null. Raises `ValueError` for values that no row has.
    """
    content: dict[str, Any] | None = None
    if row["id"] is not None:
        content = {name: row[name] for name in _FIELDS}
        content["details"] = orjson.loads(content["details"])
    hashed = {name: link[name] for name in ("workspace_id", "seq", "audit_id", "previous", "at")}
    try:
        return hashlib.sha256(rfc8785.dumps({**hashed, "row": content})).hexdigest()
    except TypeError as error:
        raise ValueError(str(error)) from error


def link_next(tx: Transaction) -> int | None:
    """Append links for up to `BATCH` rows; return how many waited. None: another process is at it."""
    if not rows.may_link(tx):
        return None
    waiting = rows.unlinked(tx, BATCH)
    heads: dict[str, tuple[int, str]] = {}
    links = []
    for row in waiting:
        if row["linked_as"] is not None:  # a transaction that was run twice
            continue
        workspace_id = row["workspace_id"] or row["unlinked_workspace"]
        if workspace_id not in heads:
            last = rows.head(tx, workspace_id)
            heads[workspace_id] = (last["seq"], last["hash"]) if last else (0, FIRST)
        seq, previous = heads[workspace_id]
        link = {"workspace_id": workspace_id, "seq": seq + 1, "audit_id": row["unlinked_id"]}
        link |= {"previous": previous, "at": now_ms()}
        link["hash"] = _hash_or_gone(link, row)
        heads[workspace_id] = (seq + 1, link["hash"])
        links.append(link)
    rows.link(tx, links, [row["unlinked_id"] for row in waiting])
    return len(waiting)


def _hash_or_gone(link: Mapping[str, Any], row: Row) -> str:
    """Hash a link; one of a row that was made unreadable is hashed as if it were gone, so it shows as changed."""
    try:
        return hash_of(link, row)
    except ValueError:
        return hash_of(link, {"id": None})


class Chainer:
    """Links new rows from a thread that runs while there are some. One per process."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._wanted = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Wake after each commit with audit rows, from now on."""
        self._db.audited = self.wake

    def wake(self) -> None:
        """Link what waits, soon; called by the sweep too, for rows of other processes."""
        with self._lock:
            self._wanted = True
            if self._thread is None and not self._closed.is_set():
                thread = threading.Thread(target=self._work, name="audit-chain", daemon=True)
                thread.start()
                self._thread = thread  # after the start, which fails at the system's limit of threads

    def close(self) -> None:
        """End the thread; what is not linked yet, another process links, or this one after its next start."""
        self._closed.set()
        if (thread := self._thread) is not None:
            thread.join(5)

    def _work(self) -> None:
        while not self._closed.wait(GATHER):
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                self._wanted = False
            self._link()

    def _link(self) -> None:
        try:
            while (waited := self._db.transact(link_next, patience=1)) == BATCH:
                pass
            if waited is None:
                self._wanted = True  # the other process may have read before our commit
        except DatabaseUnavailable:  # logged by `service.store.outages`; the sweep wakes it again
            pass
        except Exception:  # rows wait; the next commit or sweep tries again
            log.exception("audit_chain_failed")


def link_all(db: Database) -> None:
    """Link what waits, from this thread."""
    while db.transact(link_next):
        pass
