"""Images and documents of runs and sessions, stored once for each owner.

A transaction that begins to refer to content locks its row, and the deletion of the last reference waits for that lock:
content that is referred to is never deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import files, run_files, session_files
from service.types import Run, now_ms

if TYPE_CHECKING:
    from service.files import File

BATCH = 500  # digests in one statement: databases bound the number of values
_HOLDERS = (run_files, session_files)


def insert(tx: Transaction, run: Run, given: Mapping[str, File]) -> int:
    """Store what a new run brings and its owner does not have yet; return how many.

    Also that the run and its session refer to all of it.
    """
    known = _held(tx, run.user_id, list(given))
    for digest, file in given.items():
        if digest not in known:
            row = {"user_id": run.user_id, "created_at": now_ms(), **file._asdict()}
            tx.execute(InsertOnce(files), tx.sealed(files, row, run.user_id))
    for digest in given:
        _refer(tx, run, digest)
    return len(given) - len(known)


def stored_bytes(tx: Transaction, user_id: str) -> int:
    """Return the bytes of all contents of a user."""
    row = tx.row(sa.select(sa.func.sum(files.c.size).label("bytes")).where(files.c.user_id == user_id))
    return int(row["bytes"] or 0) if row is not None else 0


def refer(tx: Transaction, run: Run, digests: Sequence[str]) -> None:
    """Store that a new run refers to content that its owner has; what was erased meanwhile is left out."""
    for digest in sorted(_held(tx, run.user_id, digests)):
        _refer(tx, run, digest)


def data(tx: Transaction, user_id: str, digests: Collection[str]) -> dict[str, str]:
    """Read contents of a user, in base64, by digest. Those that were erased are left out."""
    query = sa.select(files.c.digest, files.c.data).where(files.c.user_id == user_id)
    found: dict[str, str] = {}
    for digest in sorted(digests):  # one by one: each may be large
        found |= {row["digest"]: row["data"] for row in tx.rows(query.where(files.c.digest == digest))}
    return {digest: content for digest, content in found.items() if content}


def of_runs(tx: Transaction, run_ids: Sequence[str]) -> list[Row]:
    """List what runs refer to, before they are deleted: for `drop_unused`."""
    return _referred(tx, run_files, run_files.c.run_id, run_ids)


def of_sessions(tx: Transaction, session_ids: Sequence[str]) -> list[Row]:
    """List what sessions refer to, before they are deleted: for `drop_unused`."""
    return _referred(tx, session_files, session_files.c.session_id, session_ids)


def drop_unused(tx: Transaction, candidates: Iterable[Row]) -> None:
    """Delete those of the contents that nothing refers to any more."""
    for user_id, digest in sorted({(row["user_id"], row["digest"]) for row in candidates}):
        of_row = (files.c.user_id == user_id, files.c.digest == digest)
        # Waits for a run that begins to refer to it; the next statement sees that it does.
        tx.row(sa.select(files.c.digest).where(*of_row).with_for_update())
        tx.execute(sa.delete(files).where(*of_row, *_unused()))


def delete_of_user(tx: Transaction, user_id: str, limit: int) -> int:
    """Delete at most `limit` contents of a user; return how many."""
    some = sa.select(files.c.digest).where(files.c.user_id == user_id).limit(limit)
    return tx.execute(sa.delete(files).where(files.c.user_id == user_id, files.c.digest.in_(some)))


def _refer(tx: Transaction, run: Run, digest: str) -> None:
    whose = {"digest": digest, "user_id": run.user_id}
    tx.execute(InsertOnce(run_files), {"run_id": run.id, **whose})
    if run.request.session_id is not None:
        tx.execute(InsertOnce(session_files), {"session_id": run.request.session_id, **whose})


def _held(tx: Transaction, user_id: str, digests: Sequence[str]) -> set[str]:
    """Return which contents a user has, and hold them until the commit."""
    query = sa.select(files.c.digest).where(files.c.user_id == user_id, files.c.digest.in_(digests))
    return {row["digest"] for row in tx.rows(query.order_by(files.c.digest).with_for_update(read=True))}


def _unused() -> Iterator[sa.ColumnElement[bool]]:
    for table in _HOLDERS:
        same = (table.c.user_id == files.c.user_id, table.c.digest == files.c.digest)
        yield ~sa.exists().where(*same).correlate(files)


def _referred(tx: Transaction, table: sa.Table, holder: Any, ids: Sequence[str]) -> list[Row]:
    query = sa.select(table.c.user_id, table.c.digest).distinct()
    batches = (ids[start : start + BATCH] for start in range(0, len(ids), BATCH))
    return [row for some in batches for row in tx.rows(query.where(holder.in_(some)))]
