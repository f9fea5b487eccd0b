"""Erasures of users' data: one row for each, by which any worker goes on with it. Ids and counts only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from service.store import personal_erasure, users
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import erasures
from service.store.schema import users as users_table
from service.store.visibility import in_workspace

FIRST_PASS_MS = 5_000  # the process that was asked makes the first pass; another does where it has died
_INSERT = InsertOnce(erasures)
ANY_DUE = sa.exists().where(erasures.c.next_at <= sa.bindparam("now"))


def begin(tx: Transaction, user_id: str, now: int, log_ins_until: int, within: str | None) -> bool:
    """Delete a user, who may have been deleted before, and note that all they left is to be erased.

    `log_ins_until`: see `end_log_ins`. False: there is no such user, or not in the workspace `within`.
    """
    workspace_id = users.workspace_of(tx, user_id)
    if workspace_id is None or within not in (None, workspace_id):
        return False
    users.forget(tx, user_id)
    personal_erasure.clear_account(tx, user_id)
    personal_erasure.end_log_ins(tx, user_id, log_ins_until)
    row = {"user_id": user_id, "workspace_id": workspace_id, "asked_at": now, "next_at": now + FIRST_PASS_MS}
    tx.execute(_INSERT, {**row, "counts": {}})
    return True


def of_user(tx: Transaction, user_id: str, within: str | None = None) -> list[Row]:
    """Find the erasure of a user, if any."""
    return tx.rows(sa.select(erasures).where(erasures.c.user_id == user_id, *in_workspace(erasures, within)))


def not_begun(tx: Transaction, user_ids: Sequence[str]) -> list[str]:
    """Return those of these users who are in the database and have no erasure."""
    begun = sa.exists().where(erasures.c.user_id == users_table.c.id)
    rows = tx.rows(sa.select(users_table.c.id).where(users_table.c.id.in_(user_ids), ~begun))
    return [row["id"] for row in rows]


def due(tx: Transaction, now: int, limit: int) -> list[Row]:
    query = sa.select(erasures).where(erasures.c.next_at <= now).order_by(erasures.c.next_at)
    return tx.rows(query.limit(limit))


def claim(tx: Transaction, erasure: Row, next_at: int) -> bool:
    """Claim a pass, exclusively until `next_at`. False: claimed by another."""
    one = sa.update(erasures).where(erasures.c.user_id == erasure["user_id"])
    if tx.execute(one.where(erasures.c.next_at == erasure["next_at"]).values(next_at=next_at)) == 1:
        return True
    # A retry after a commit whose answer was lost finds its own time.
    return any(row["next_at"] == next_at for row in of_user(tx, erasure["user_id"]))


def finish(tx: Transaction, erasure: Row, changes: Mapping[str, Any]) -> None:
    """End a claim of `erasure`, unless another has claimed it since."""
    claimed = sa.and_(erasures.c.user_id == erasure["user_id"], erasures.c.next_at == erasure["next_at"])
    tx.execute(sa.update(erasures).where(claimed).values(changes))


def count(tx: Transaction, user_id: str, kind: str, erased: int) -> None:
    """Add to the counts of an erasure; a little less or more after a crash."""
    row = tx.row(sa.select(erasures.c.counts).where(erasures.c.user_id == user_id).with_for_update())
    counts = dict(row["counts"]) if row else {}
    changes = {"counts": {**counts, kind: counts.get(kind, 0) + erased}}
    tx.execute(sa.update(erasures).where(erasures.c.user_id == user_id).values(changes))
