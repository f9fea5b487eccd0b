"""Memory: notes about users and their end users, which the user changes over the API and agents by their tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from service.audit.record import Action, record
from service.errors import DatabaseUnavailable, Forbidden, NotFound, SlipwayError
from service.store import memory as rows
from service.store import ownership
from service.store.database import Database, Row, Transaction
from service.store.memory import Holder, Writing
from service.store.visibility import AGENTS, allows, of_kind
from service.tools.base import ToolFailed
from service.tools.context import Note
from service.types import Caller, Run, public_fields, rfc3339_second

T = TypeVar("T")


def item(row: Row) -> dict[str, Any]:
    """Return a note as lists show it, without its text."""
    shown = public_fields(row, "key agent created_at updated_at")
    return {**shown, "untrusted": list(row["untrusted"] or ())}


def public(row: Row) -> dict[str, Any]:
    return {**item(row), "text": row["text"]}


class Memory:
    """Notes of callers over the API. A key that is scoped to agents reaches what these have written."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def list(self, caller: Caller, holder: Holder) -> list[Row]:
        """List the notes about a person, by key, without their texts."""
        found = self._db.query(lambda tx: rows.of_holder(tx, holder))
        return [row for row in found if _covers(caller, row)]

    def get(self, caller: Caller, holder: Holder, key: str) -> Row:
        """Find a note. Raises `NotFound`."""
        return _visible(caller, self._db.query(lambda tx: rows.get(tx, holder, key)))

    def put(self, tx: Transaction, caller: Caller, holder: Holder, key: str, text: str) -> Row:
        """Write a note in the caller's own words. Raises `TooMany`, and `NotFound` for one out of scope."""
        before = rows.get(tx, holder, key)
        if before is not None:
            _visible(caller, before)
        elif of_kind(caller.scopes, AGENTS):
            raise NotFound("No agent in the scope of this API key has written such a note.")
        row = rows.put(tx, holder, key, text, Writing(before["agent"] if before is not None else None))
        record(tx, Action.MEMORY_CHANGED, f"user:{holder.user_id}")
        return row

    def delete(self, tx: Transaction, caller: Caller, holder: Holder, key: str) -> None:
        """Delete a note. Raises `NotFound`."""
        _visible(caller, rows.get(tx, holder, key))
        rows.delete(tx, holder, key)
        record(tx, Action.MEMORY_DELETED, f"user:{holder.user_id}")


def holder_of(caller: Caller, end_user: str | None, key_id: str | None = None) -> Holder:
    """Return whom notes are about that a caller asks for: themselves, or an end user of a key.

    `key_id`: for a log-in, which has no end users of its own. Raises `Forbidden`.
    """
    if caller.key_id is not None and key_id not in (None, caller.key_id):
        raise Forbidden("An API key reaches notes about its own end users only.")
    return Holder.of(caller.user_id, caller.key_id or key_id, end_user)


@dataclass(frozen=True, slots=True)
class RunNotes:
    """Notes for the tools of one attempt at a run: about its end user, or else its user.

    Writes are fenced by the attempt. `untrusted`: sources of untrusted text in the run, which a note keeps. `shown`:
    guardrails on what callers may see, as they can read the note over the API.
    """

    db: Database
    run: Run
    agent: str
    untrusted: Sequence[str]
    shown: Callable[[str], str] = lambda text: text

    @property
    def _holder(self) -> Holder:
        return Holder.of(self.run.user_id, self.run.key_id, self.run.request.end_user)

    def list(self) -> list[Note]:
        found = self._asked(lambda: self.db.query(lambda tx: rows.of_holder(tx, self._holder)))
        return [_note({**row, "text": ""}) for row in found]

    def read(self, key: str) -> Note | None:
        row = self._asked(lambda: self.db.query(lambda tx: rows.get(tx, self._holder, key)))
        return None if row is None else _note(row)

    def write(self, key: str, text: str) -> None:
        by = Writing(self.agent, self.untrusted)
        shown = self.shown(text)
        self._change(lambda tx: rows.put(tx, self._holder, key, shown, by))

    def delete(self, key: str) -> bool:
        return self._change(lambda tx: rows.delete(tx, self._holder, key))

    def _change(self, work: Callable[[Transaction], T]) -> T:
        """Change notes while this attempt has the run. Raises `ToolFailed`."""

        def fenced(tx: Transaction) -> T:
            owned = ownership.owned_by(tx, self.run.id, self.run.attempt)
            if owned is None or owned["refused"]:
                raise ToolFailed("Nothing was changed: the run has ended here")
            return work(tx)

        return self._asked(lambda: self.db.transact(fenced))

    def _asked(self, ask: Callable[[], T]) -> T:
        try:
            return ask()
        except DatabaseUnavailable:
            raise ToolFailed("The notes cannot be reached now: try later") from None
        except SlipwayError as error:
            raise ToolFailed(error.detail) from None


def _note(row: Row) -> Note:
    updated = f"{rfc3339_second(row['updated_at'] // 1000)}Z"
    return Note(row["key"], row["text"], updated, bool(row["untrusted"]))


def _covers(caller: Caller, row: Row) -> bool:
    return allows(caller.scopes, AGENTS + (row["agent"] or ""))


def _visible(caller: Caller, row: Row | None) -> Row:
    if row is None or not _covers(caller, row):
        raise NotFound("There is no such note.")
    return row
