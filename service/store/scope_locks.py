"""Locks on scopes: whoever makes a hold shares those of all its scopes, and whoever sets a cap has its scope's alone.

They are PostgreSQL's advisory locks of a transaction: they end with it, behind a pooler too, and touch no row. SQLite
has one writer and needs none.
"""

from __future__ import annotations

import zlib
from collections.abc import Collection
from functools import cache

import sqlalchemy as sa

from service.store.database import Transaction
from service.store.statement import Statement

SPACE = 0x51A9  # the first half of every key, so that no other advisory lock is meant


def share(tx: Transaction, scopes: Collection[str]) -> None:
    """Keep caps of these scopes from being set until this transaction ends; waits for one that is being set.

    A statement of its own, before the caps are read: what is read after it is what the setter left.
    """
    _lock(tx, "pg_advisory_xact_lock_shared", scopes)


def own(tx: Transaction, scope: str) -> None:
    """Wait for every transaction that holds against this scope, and keep others from it until this one ends."""
    _lock(tx, "pg_advisory_xact_lock", [scope])


def _lock(tx: Transaction, function: str, scopes: Collection[str]) -> None:
    if tx.one_writer:
        return
    keys = sorted({_key(scope) for scope in scopes})
    tx.execute(_statement(function, len(keys)), {f"key{n}": key for n, key in enumerate(keys)})


@cache
def _statement(function: str, count: int) -> Statement:
    keys = [sa.bindparam(f"key{n}", type_=sa.Integer()) for n in range(count)]
    locks = [getattr(sa.func, function)(SPACE, key).label(f"lock{n}") for n, key in enumerate(keys)]
    return Statement(sa.select(*locks))


def _key(scope: str) -> int:
    """Return the second half of a key. Two scopes with one key wait for each other now and then, no more."""
    return zlib.crc32(scope.encode()) - 2**31
