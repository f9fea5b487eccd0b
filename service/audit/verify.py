"""Verification of the audit: every row against its link, every link against the one before, and what has no link."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

from service.audit.chain import FIRST, hash_of
from service.audit.read import known
from service.store import audit as rows
from service.store.database import Database, Row
from service.types import now_ms

BATCH = 500  # rows in memory
YOUNG_MS = 60_000  # a row that waits for its link any longer is a fault
FaultKind = Literal["changed", "missing", "order", "unlinked", "cut", "rewritten"]


class AuditFault(NamedTuple):
    """First link or row that is wrong. `seq` is None for a row without a link, `audit_id` for a link that is gone."""

    seq: int | None
    audit_id: str | None
    fault: FaultKind


class Head(NamedTuple):
    """Last link that was read."""

    seq: int = 0
    hash: str = FIRST


@dataclass(frozen=True, slots=True)
class Verified:
    """Result for one workspace. `partial`: time was up; go on after `head.seq`."""

    workspace_id: str
    checked: int
    unlinked: int
    first_fault: AuditFault | None
    head: Head
    partial: bool = False

    @property
    def ok(self) -> bool:
        """Return whether all was checked, and nothing was wrong."""
        return self.first_fault is None and not self.partial

    def public(self) -> dict[str, Any]:
        fault = self.first_fault._asdict() if self.first_fault else None
        head = self.head._asdict() if self.head.seq else None
        return {"ok": self.ok, **asdict(self), "first_fault": fault, "head": head}


class Verifier:
    """Check of one workspace, in batches: memory is bounded, and `seconds` may be."""

    def __init__(
        self,
        db: Database,
        workspace_id: str,
        *,
        seconds: float = float("inf"),
        read: Callable[[int], object] = lambda count: None,
    ) -> None:
        self._db = db
        self._workspace_id = workspace_id
        self._end = time.monotonic() + seconds
        self._read = read  # told how many rows were read
        self._checked = 0
        self._partial = False

    def verify(self, after_seq: int = 0) -> Verified:
        """Check the links after a sequence number, whose link is taken for right; then look for rows without one."""
        start = self._db.query(partial(rows.link_at, workspace_id=self._workspace_id, seq=after_seq))
        if start is None and after_seq:
            missing = AuditFault(after_seq, None, "missing")
            return Verified(self._workspace_id, 0, 0, missing, Head())
        head = Head(after_seq, start["hash"]) if start else Head()
        fault, head = self._check_chain(head)
        young = 0
        if not self._partial and (fault is None or fault.audit_id is None):
            unlinked, young = self._unlinked()
            fault = _named(fault, unlinked)
        return Verified(self._workspace_id, self._checked, young, fault, head, self._partial)

    def _check_chain(self, head: Head) -> tuple[AuditFault | None, Head]:
        for link in self._links(head.seq):
            kind = _fault(head, {**link, "workspace_id": self._workspace_id, "at": link["linked_at"]}, link)
            if kind is not None:
                gap = kind == "missing" and link["seq"] != head.seq + 1
                seq, audit_id = (head.seq + 1, None) if gap else (link["seq"], link["audit_id"])
                return AuditFault(seq, audit_id, kind), head
            head = Head(link["seq"], link["hash"])
            self._checked += 1
        return None, head

    def _links(self, after: int) -> Iterator[Row]:
        chain = partial(rows.chain, workspace_id=self._workspace_id, limit=BATCH)
        while found := self._db.query(partial(chain, after=after)):
            self._read(len(found))
            yield from found
            after = found[-1]["seq"]
            if self._is_over():
                return

    def _unlinked(self) -> tuple[str | None, int]:
        """Return the first row whose link is gone or overdue, and how many are young."""
        first, young, after = None, 0, ""
        now = now_ms()
        listed = partial(rows.without_link, workspace_id=self._workspace_id, limit=BATCH)
        while found := self._db.query(partial(listed, after=after)):
            self._read(len(found))
            for row in found:
                # Not by its time alone, which whoever writes a row chooses.
                if row["waits"] and isinstance(row["at"], int) and abs(now - row["at"]) <= YOUNG_MS:
                    young += 1
                else:
                    first = first or row["id"]
            after = found[-1]["id"]
            if self._is_over():
                break
        return first, young

    def _is_over(self) -> bool:
        self._partial = time.monotonic() > self._end
        return self._partial


def _fault(head: Head, link: Row, row: Row) -> FaultKind | None:
    """Compare a link with the one before and with its row."""
    if link["seq"] != head.seq + 1:
        return "missing"
    if link["previous"] != head.hash:
        return "order"
    try:
        same = hash_of(link, row) == link["hash"]
    except ValueError:
        same = False
    if row["id"] is None:  # also where the row was gone before it was linked
        return "missing"
    return None if same else "changed"


def _named(fault: AuditFault | None, unlinked: str | None) -> AuditFault | None:
    """Name the row of a link that is gone: the first that has none."""
    if fault is not None:
        return fault._replace(audit_id=unlinked)
    return None if unlinked is None else AuditFault(None, unlinked, "unlinked")


def verify_all(
    db: Database,
    read: Callable[[int], object] = lambda count: None,
    workspace_id: str | None = None,
    after_seq: int = 0,
) -> Iterator[Verified]:
    """Verify every workspace, or one after a link. Raises `NotFound` for one that never was."""
    for one in [known(db, workspace_id)] if workspace_id else db.query(rows.workspaces):
        yield Verifier(db, one, read=read).verify(after_seq)
