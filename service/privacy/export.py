"""Export of one person's data: one object a line, read by pages, so that a long one is never in memory as a whole."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from service.audit.record import Action, record
from service.errors import NotFound
from service.store import personal_data, users
from service.store.database import Database, Row, Transaction
from service.store.personal_data import (
    MESSAGES,
    OF_RUN,
    OF_USER,
    RUNS,
    SCHEDULES,
    SESSIONS,
    SLOTS,
    PersonalRows,
)
from service.store.run_values import AS_TEXT
from service.text import exact_json
from service.text.packed import unpacked
from service.types import public_fields

Line = dict[str, Any]


def export(db: Database, user_id: str, within: str | None = None) -> Iterator[Line]:
    """Record the export, and yield its lines, each with its `kind`. `within`: only a user of that workspace.

    Raises `NotFound` at once.
    """
    db.transact(partial(_begin, user_id=user_id, within=within))
    return _lines(db, user_id)


def _begin(tx: Transaction, user_id: str, within: str | None) -> None:
    workspace_id = users.workspace_of(tx, user_id)
    if workspace_id is None or within not in (None, workspace_id):
        raise NotFound("There is no such user.")
    record(tx, Action.USER_EXPORTED, f"user:{user_id}", workspace_id=workspace_id)


def _lines(db: Database, user_id: str) -> Iterator[Line]:
    for kind in OF_USER:
        yield from (_line(kind, row) for row in _rows(db, kind, user_id))
    for whole, part in ((SESSIONS, MESSAGES), (SCHEDULES, SLOTS)):
        for found in _rows(db, whole, user_id):
            yield _line(whole, found)
            yield from (_line(part, row) for row in _rows(db, part, found["id"]))
    for run in _rows(db, RUNS, user_id):
        yield _line(RUNS, {**run, "request": _decoded(run["request"]), "result": _decoded(run["result"])})
        for kind in OF_RUN:
            yield from (_line(kind, row) for row in _rows(db, kind, run["id"]))


def _rows(db: Database, kind: PersonalRows, owner: str) -> Iterator[Row]:
    """Read rows page by page, each in a transaction of its own."""
    after = None
    while page := db.query(partial(personal_data.page, kind=kind, owner=owner, after=after, limit=kind.page)):
        yield from page
        after = [page[-1][column.name] for column in kind.by]


def _line(kind: PersonalRows, row: Row) -> Line:
    shown = {name: value for name, value in _decoded(row).items() if name not in kind.hidden}
    for name in (name for name in kind.packed if shown[name] is not None):
        shown[name] = unpacked(shown[name]).decode("utf-8", "replace")
    if "kind" in shown:
        shown[f"{kind.kind}_kind"] = shown.pop("kind")
    return {"kind": kind.kind, **public_fields(shown, " ".join(shown))}


def _decoded(values: Row | None) -> Row:
    """Decode what is stored as JSON text."""
    return {
        name: exact_json.embedded(value) if name in AS_TEXT else value
        for name, value in (values or {}).items()
    }
