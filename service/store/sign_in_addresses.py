"""Sign-in addresses of users, as digests: no address is stored."""

from __future__ import annotations

import sqlalchemy as sa

from service.store.database import InsertOnce, Transaction
from service.store.schema import sign_in_addresses as table
from service.store.schema import users

MAX_ADDRESSES = 20  # per user; the newest stay
LIFE_MS = 90 * 86_400_000
_SEEN = sa.select(table.c.seen_at).where(
    table.c.user_id == sa.bindparam("user_id"), table.c.digest == sa.bindparam("digest")
)


def seen_at(tx: Transaction, user_id: str, digest: str) -> int | None:
    """Time (ms) of the user's last sign-in from an address; None: never."""
    row = tx.row(_SEEN, {"user_id": user_id, "digest": digest})
    return None if row is None else int(row["seen_at"])


def remember(tx: Transaction, user_id: str, digest: str, now: int) -> None:
    """Record a sign-in; keep the user's `MAX_ADDRESSES` newest addresses."""
    # The lock serialises concurrent sign-ins, and a sign-in with the deletion of its user.
    lock = sa.select(users.c.disabled).where(users.c.id == user_id).with_for_update(key_share=True)
    user = tx.row(lock)
    if user is None or user["disabled"]:
        return
    of_user = table.c.user_id == user_id
    tx.execute(InsertOnce(table), {"user_id": user_id, "digest": digest, "seen_at": now})
    tx.execute(sa.update(table).where(of_user, table.c.digest == digest).values(seen_at=now))
    newest = sa.select(table.c.digest).where(of_user).order_by(table.c.seen_at.desc()).limit(MAX_ADDRESSES)
    tx.execute(sa.delete(table).where(of_user, table.c.digest.not_in(newest)))


def forget(tx: Transaction, user_id: str) -> None:
    tx.execute(sa.delete(table).where(table.c.user_id == user_id))


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete at most `limit` addresses last used before `before` (ms); return how many."""
    key = (table.c.user_id, table.c.digest)
    old = sa.select(*key).where(table.c.seen_at < before).limit(limit).with_for_update(skip_locked=True)
    return tx.execute(sa.delete(table).where(sa.tuple_(*key).in_(old)))
