"""Erasure of a person's rows: which are left, and their deletion in batches."""

from __future__ import annotations

import orjson
import sqlalchemy as sa

from service.store.database import Transaction
from service.store.schema import (
    api_keys,
    approvals,
    idempotency,
    identities,
    memory_notes,
    runs,
    schedules,
    sessions,
    sign_in_addresses,
    token_families,
)


def _about(user_id: str) -> sa.ColumnElement[bool]:
    """Condition for a user's runs, and for forks of them that are somebody else's."""
    return sa.or_(runs.c.user_id == user_id, runs.c.subject_id == user_id)


def unfinished_runs(tx: Transaction, user_id: str, limit: int) -> list[str]:
    query = sa.select(runs.c.id).where(_about(user_id), runs.c.finished_at.is_(None))
    return [row["id"] for row in tx.rows(query.order_by(runs.c.id).limit(limit))]


def ended_runs(tx: Transaction, user_id: str, limit: int) -> list[str]:
    query = sa.select(runs.c.id).where(_about(user_id), runs.c.finished_at.is_not(None))
    return [row["id"] for row in tx.rows(query.order_by(runs.c.id).limit(limit))]


def sessions_of(tx: Transaction, user_id: str, limit: int) -> list[str]:
    query = sa.select(sessions.c.id).where(sessions.c.user_id == user_id).order_by(sessions.c.id)
    return [row["id"] for row in tx.rows(query.limit(limit))]


def delete_schedules(tx: Transaction, user_id: str, limit: int) -> int:
    """Delete at most `limit` schedules of a user, with the outcomes of their slots; return how many."""
    ids = sa.select(schedules.c.id).where(schedules.c.user_id == user_id).limit(limit)
    return tx.execute(sa.delete(schedules).where(schedules.c.id.in_(ids)))


def delete_notes(tx: Transaction, user_id: str, limit: int) -> int:
    """Delete at most `limit` notes about a user and their end users; return how many."""
    key = memory_notes.c.holder, memory_notes.c.digest
    some = sa.select(*key).where(memory_notes.c.user_id == user_id).limit(limit)
    return tx.execute(
        sa.delete(memory_notes).where(memory_notes.c.user_id == user_id, sa.tuple_(*key).in_(some))
    )


def delete_idempotency(tx: Transaction, user_id: str, limit: int) -> int:
    """Delete at most `limit` idempotency keys of a user; return how many."""
    keys = sa.select(idempotency.c.key).where(idempotency.c.user_id == user_id).limit(limit)
    return tx.execute(
        sa.delete(idempotency).where(idempotency.c.user_id == user_id, idempotency.c.key.in_(keys))
    )


def answers_about(
    tx: Transaction, user_id: str, after: tuple[str, str], limit: int
) -> tuple[list[tuple[str, str]], tuple[str, str] | None]:
    """Find keys of other callers whose stored answer names a user, among the `limit` keys after one.

    Returns them, and the key to go on from; None: there are no more.
    """
    key = (idempotency.c.user_id, idempotency.c.key)
    read = sa.select(*key, idempotency.c.body).where(sa.tuple_(*key) > sa.tuple_(*map(sa.literal, after)))
    rows = tx.rows(read.order_by(*key).limit(limit))  # compared here: bodies may be sealed
    last = (rows[-1]["user_id"], rows[-1]["key"]) if len(rows) == limit else None
    named = user_id.encode()
    return [(row["user_id"], row["key"]) for row in rows if named in orjson.dumps(row["body"])], last


def delete_answer(tx: Transaction, user_id: str, key: str) -> int:
    return tx.execute(
        sa.delete(idempotency).where(idempotency.c.user_id == user_id, idempotency.c.key == key)
    )


def clear_comments(tx: Transaction, user_id: str, limit: int) -> int:
    """Clear at most `limit` comments with which a user decided about the calls of others; return how many."""
    said = sa.select(approvals.c.id).where(
        approvals.c.decided_by == user_id, approvals.c.comment.is_not(None)
    )
    some = said.order_by(approvals.c.id).limit(limit).with_for_update()
    return tx.execute(sa.update(approvals).where(approvals.c.id.in_(some)).values(comment=None))


def clear_account(tx: Transaction, user_id: str) -> int:
    """Delete a user's addresses and identities, and the names of their keys; return how many there were.

    Ids stay, and digests: by these, keys and tokens that a process knows are refused.
    """
    nameless = {"name": "", "prefix": "", "scopes": []}
    named = sa.update(api_keys).where(api_keys.c.user_id == user_id, api_keys.c.prefix != "")
    found = tx.execute(named.values(nameless))
    for table in (sign_in_addresses, identities):
        found += tx.execute(sa.delete(table).where(table.c.user_id == user_id))
    return found


def end_log_ins(tx: Transaction, user_id: str, log_ins_until: int) -> None:
    """Let upkeep delete a user's log-ins after a time (ms)."""
    later = sa.update(token_families).where(
        token_families.c.user_id == user_id, token_families.c.expires_at > log_ins_until
    )
    tx.execute(later.values(expires_at=log_ins_until))
