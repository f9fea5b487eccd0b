"""Tables of the keyring, a database of its own: keys of users, and the users whose keys are destroyed.

A user's row is locked by each change of their keys: so none is made while or after they are destroyed.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection
from contextlib import suppress

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, LargeBinary, String
from sqlalchemy.schema import CreateIndex, CreateTable

from service.store.database import Database, InsertOnce, Transaction
from service.store.outages import Unfit
from service.store.sealer import KEY_BYTES, Keys
from service.types import now_ms

POOL_SIZE = 4  # connections of a process: keys are cached
PATIENCE = 1.0  # seconds
TRIES = 10  # to make the tables, where several processes begin at once
# A key must outlast the texts under it: of SQLite too, a commit is on the disk when it is told.
PRAGMAS = ("synchronous=FULL",)
_metadata = sa.MetaData()
holders = sa.Table(
    "key_holders",
    _metadata,
    Column("user_id", String(32), primary_key=True),
    Column("erased_at", BigInteger, index=True),
)
keys = sa.Table(
    "user_keys",
    _metadata,
    Column("id", String(32), primary_key=True),  # sorts by time: the last one of a user seals
    Column("user_id", String(32), ForeignKey("key_holders.user_id"), nullable=False, index=True),
    Column("secret", LargeBinary(KEY_BYTES), nullable=False),
    Column("created_at", BigInteger, nullable=False),
)
TABLES = (holders.name, keys.name)


class KeyringDatabase(Database):
    """Database of the keyring, whose tables are made with the first connection."""

    name = "keyring"
    pragmas = PRAGMAS


def connect(url: str) -> Database:
    """Return the keyring; a file is made so that nobody else can read it."""
    if path := url.startswith("sqlite") and sa.make_url(url).database:
        with suppress(OSError):  # reported when the file cannot be opened
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    return KeyringDatabase(url, pool_size=POOL_SIZE, patience=PATIENCE, check=_check)


def _check(connection: sa.Connection) -> None:
    """Make the tables. Raise `Unfit` for the database of the service itself, whose backups have its texts."""
    if sa.inspect(connection).has_table("users"):
        raise Unfit("KEYRING_URL leads to the database of the service: keys need one of their own.")
    for _ in range(TRIES):
        if all(map(sa.inspect(connection).has_table, TABLES)):
            return
        with suppress(
            sa.exc.ProgrammingError, sa.exc.IntegrityError
        ):  # no right, or made by another process just now
            for table in _metadata.sorted_tables:
                connection.execute(CreateTable(table, if_not_exists=True))
                for index in table.indexes:
                    connection.execute(CreateIndex(index, if_not_exists=True))
        time.sleep(PATIENCE / TRIES)
    raise Unfit("The user of KEYRING_URL may not make tables there.")


def of_users(tx: Transaction, user_ids: Collection[str]) -> dict[str, Keys]:
    """Read users' keys by id, oldest first; none of one whose keys are destroyed, and nothing of an unknown user."""
    query = sa.select(holders.c.user_id, keys.c.id, keys.c.secret).outerjoin_from(holders, keys)
    found: dict[str, dict[str, bytes]] = {}
    for row in tx.rows(query.where(holders.c.user_id.in_(user_ids)).order_by(keys.c.id)):
        of_user = found.setdefault(row["user_id"], {})
        if row["id"] is not None:
            of_user[row["id"]] = bytes(row["secret"])
    return dict(found)


def create(tx: Transaction, user_id: str, secret: bytes) -> None:
    """Give a user their first key, unless they have one, or had."""
    if not _lock(tx, user_id) and tx.row(sa.select(keys.c.id).where(keys.c.user_id == user_id)) is None:
        _insert(tx, user_id, secret)


def rotate(tx: Transaction, user_id: str, secret: bytes) -> None:
    """Give a user another key, unless theirs are destroyed; the earlier ones still open."""
    if not _lock(tx, user_id):
        _insert(tx, user_id, secret)


def destroy(tx: Transaction, user_id: str) -> None:
    """Destroy a user's keys, for good; they never get another one."""
    if not _lock(tx, user_id):
        tx.execute(sa.update(holders).where(holders.c.user_id == user_id).values(erased_at=now_ms()))
    tx.execute(sa.delete(keys).where(keys.c.user_id == user_id))


def users(tx: Transaction, after: str, limit: int, *, erased: bool) -> list[str]:
    """List users whose keys are destroyed, or those of the others, after one, in order."""
    is_erased = holders.c.erased_at.is_not(None) if erased else holders.c.erased_at.is_(None)
    query = sa.select(holders.c.user_id).where(holders.c.user_id > after, is_erased)
    return [row["user_id"] for row in tx.rows(query.order_by(holders.c.user_id).limit(limit))]


def _lock(tx: Transaction, user_id: str) -> bool:
    """Lock a user's row, made if there is none; return whether their keys are destroyed."""
    tx.execute(InsertOnce(holders), {"user_id": user_id})
    row = tx.row(sa.select(holders.c.erased_at).where(holders.c.user_id == user_id).with_for_update())
    return row is not None and row["erased_at"] is not None


def _insert(tx: Transaction, user_id: str, secret: bytes) -> None:
    row = {"id": tx.id("uky"), "user_id": user_id, "secret": secret, "created_at": now_ms()}
    tx.execute(InsertOnce(keys), row)
