"""Advisory locks on scopes: a hold shares those of all its scopes, setting a cap takes its scope's exclusively.

PostgreSQL's transaction-level advisory locks end with the transaction, behind a pooler too, and touch no row. SQLite
has one writer and needs none.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from functools import cache

import sqlalchemy as sa

from service.store.database import Transaction
from service.store.statement import Statement

SPACE = 0x51A9  # first half of every key: a namespace among advisory locks


def share(tx: Transaction, scopes: Collection[str]) -> None:
    """Lock scopes as shared: waits for a cap that is being set, and delays others until this transaction ends.

    A statement of its own, before the caps are read, so that they are read as the setter left them.
    """
    _lock(tx, "pg_advisory_xact_lock_shared", scopes)


def own(tx: Transaction, scope: str) -> None:
    """Lock a scope exclusively: waits for transactions that share it, and delays others until this one ends."""
    _lock(tx, "pg_advisory_xact_lock", [scope])


def _lock(tx: Transaction, function: str, scopes: Collection[str]) -> None:
    if tx.one_writer:
        return
    keys = sorted({_key(scope) for scope in scopes})
    tx.send(_statement(function, len(keys)), {f"key{n}": key for n, key in enumerate(keys)})


@cache
def _statement(function: str, count: int) -> Statement:
    keys = [sa.bindparam(f"key{n}", type_=sa.Integer()) for n in range(count)]
    locks = [getattr(sa.func, function)(SPACE, key).label(f"lock{n}") for n, key in enumerate(keys)]
    return Statement(sa.select(*locks))


def _key(scope: str) -> int:
    """Return the second half of a key. Two scopes with the same one only wait for each other."""
    return zlib.crc32(scope.encode()) - 2**31
