"""Reading the audit: pages for an API, and a whole workspace for an export."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from service.errors import NotFound
from service.store import audit as rows
from service.store.audit import Filter
from service.store.database import Database, Row
from service.types import public_fields, rfc3339

BATCH = 500  # rows in memory
_SHOWN = "id workspace_id at action actor user_id key_id subject address request_id result details"


def known(db: Database, workspace_id: str) -> str:
    """Return the id of a workspace that is there, or was. Raises `NotFound`: nothing is no proof."""
    if not db.query(partial(rows.has_workspace, workspace_id=workspace_id)):
        raise NotFound("There is no such workspace.")
    return workspace_id


def page(db: Database, chosen: Filter, *, limit: int, before: str | None) -> list[dict[str, Any]]:
    """List rows, newest first, before the id `before`."""
    found = db.query(partial(rows.recent, chosen=chosen, limit=limit, before=before))
    return [{**public_fields(row, _SHOWN), "at": rfc3339(row["at"])} for row in found]


def export(db: Database, workspace_id: str | None, after: str) -> Iterator[Row]:
    """Yield a workspace's rows after an id, or those of all, oldest first, each as stored, with its link."""
    for one in [known(db, workspace_id)] if workspace_id else db.query(rows.workspaces):
        last = after
        while found := db.query(partial(rows.export, workspace_id=one, limit=BATCH, after=last)):
            yield from found
            last = found[-1]["id"]
