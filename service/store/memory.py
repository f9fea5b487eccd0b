"""Notes that agents keep about their users, by user, holder and key.

`holder` is empty for notes about the user; notes about an end user have the key's id and their name.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import sqlalchemy as sa

from service.errors import TooMany
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import memory_notes
from service.types import now_ms

MAX_NOTES = 100  # about a user, and about each of their end users …
MAX_ALL = 10_000  # … and about all of these together
_notes = memory_notes.c
_LISTED = [column for column in _notes if column.key != "text"]


class Holder(NamedTuple):
    """Person whom notes are about: a user, or an end user as one of the user's keys names them."""

    user_id: str
    name: str = ""

    @classmethod
    def of(cls, user_id: str, key_id: str | None, end_user: str | None) -> Holder:
        return cls(user_id) if end_user is None else cls(user_id, f"{key_id or ''}/{end_user}")


class Writing(NamedTuple):
    """Origin of a note: the agent that writes it (None: the user), and untrusted text in its run."""

    agent: str | None = None
    untrusted: Sequence[str] = ()


def of_holder(tx: Transaction, holder: Holder) -> list[Row]:
    """List the notes about a person without their texts, by key: at most about `MAX_NOTES`."""
    query = sa.select(*_LISTED).where(_notes.user_id == holder.user_id, _notes.holder == holder.name)
    return sorted(tx.rows(query.limit(2 * MAX_NOTES)), key=lambda row: str(row["key"]))


def get(tx: Transaction, holder: Holder, key: str) -> Row | None:
    return tx.row(sa.select(memory_notes).where(*_is(holder, key)))


def put(tx: Transaction, holder: Holder, key: str, text: str, by: Writing) -> Row:
    """Write a note, replacing one of this key. Raises `TooMany`; concurrent writes may pass the bounds by a few."""
    now = now_ms()
    _check_room(tx, holder, key)
    changed = {"text": text, "agent": by.agent, "untrusted": list(by.untrusted) or None, "updated_at": now}
    row = {"user_id": holder.user_id, "holder": holder.name, "digest": _digest(holder, key), "key": key}
    sealed = tx.sealed(memory_notes, {**row, **changed, "created_at": now}, holder.user_id)
    if not tx.execute(InsertOnce(memory_notes), sealed):
        values = tx.sealed(memory_notes, changed, holder.user_id)
        tx.execute(sa.update(memory_notes).where(*_is(holder, key)).values(**values))
    kept = get(tx, holder, key) or changed  # deleted meanwhile
    return {**row, "created_at": now, **kept}


def delete(tx: Transaction, holder: Holder, key: str) -> bool:
    """Delete a note. False: there is none."""
    return tx.execute(sa.delete(memory_notes).where(*_is(holder, key))) == 1


def _check_room(tx: Transaction, holder: Holder, key: str) -> None:
    is_other = sa.or_(_notes.holder != holder.name, _notes.digest != _digest(holder, key))
    others = sa.select(_notes.digest).where(_notes.user_id == holder.user_id, is_other)
    for most, query in ((MAX_NOTES, others.where(_notes.holder == holder.name)), (MAX_ALL, others)):
        if tx.row(query.offset(most - 1).limit(1)):
            raise TooMany(f"There are {most} notes: delete one first.")


def _is(holder: Holder, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return (
        _notes.user_id == holder.user_id,
        _notes.holder == holder.name,
        _notes.digest == _digest(holder, key),
    )


def _digest(holder: Holder, key: str) -> str:
    return hashlib.sha256(f"{holder.user_id}\0{key}".encode()).hexdigest()
