"""Workspaces: tenants of one service. Each user belongs to one for good, and with them all that is theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from service.audit.record import Action, record
from service.auth.revocation import Revocations
from service.errors import Conflict, NotFound, fault
from service.guardrails.policy import parse_rails
from service.ids import new_id
from service.store import token_families as token_rows
from service.store import workspaces as rows
from service.store.database import Database, Row, Transaction
from service.store.token_families import Revoked
from service.types import DEFAULT_WORKSPACE, now_ms, public_fields

DEFAULT_NAME = "default"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}")
_FIELDS = "id name disabled created_at guardrails"


@dataclass(frozen=True, slots=True)
class Workspace:
    id: str
    name: str
    disabled: bool
    created_at: int
    guardrails: dict[str, Any] | None = None  # of all its runs

    def public(self) -> dict[str, Any]:
        return public_fields(asdict(self), _FIELDS)


class WorkspaceService:
    """Creation, change and deletion of workspaces; `default` is always there, under its name."""

    def __init__(self, db: Database, revocations: Revocations) -> None:
        self._db = db
        self._revocations = revocations
        self.refused: Callable[[], object] = lambda: None  # called once a workspace is disabled

    def new_row(self, name: str) -> dict[str, Any]:
        """Build a validated `workspaces` row without inserting. Raises `Invalid`."""
        about = {"id": new_id("wsp"), "name": _checked(name), "disabled": False, "created_at": now_ms()}
        return {**about, "guardrails": None}

    def insert(self, tx: Transaction, row: dict[str, Any]) -> Workspace:
        """Insert a row of `new_row`. Raises `Conflict` when the name is taken."""
        rows.insert(tx, row)
        record(tx, Action.WORKSPACE_CREATED, f"workspace:{row['id']}", workspace_id=row["id"])
        return _workspace(row)

    def get(self, workspace_id: str) -> Workspace:
        """Find a workspace by id. Raises `NotFound`."""
        row = self._db.query(lambda tx: rows.get(tx, workspace_id))
        if row is None:
            raise no_workspace(workspace_id)
        return _workspace(row)

    def named(self, name: str) -> Workspace:
        """Find a workspace by name. Raises `NotFound`."""
        row = self._db.query(lambda tx: rows.by_name(tx, name))
        if row is None:
            raise no_workspace(name)
        return _workspace(row)

    def page(self, *, limit: int, after: str | None) -> list[Workspace]:
        """List workspaces, oldest first, after the id `after`."""
        return [_workspace(row) for row in self._db.query(partial(rows.page, limit=limit, after=after))]

    def change(
        self,
        workspace_id: str,
        *,
        name: str | None = None,
        disabled: bool | None = None,
        guardrails: Mapping[str, Any] | None = None,
    ) -> Workspace:
        """Rename, disable or enable a workspace, replace its guardrails. Raises `Invalid`, `NotFound` and `Conflict`.

        Disabling ends all log-ins of its users, refuses new ones and their keys, and cancels their runs, on every
        worker at once. Empty `guardrails` remove them.
        """
        changes: dict[str, Any] = {"name": None if name is None else _checked(name), "disabled": disabled}
        changes = {key: value for key, value in changes.items() if value is not None}
        if guardrails is not None:
            changes["guardrails"] = _parsed(guardrails)
        self._change(workspace_id, changes)
        if disabled:
            self.refused()
        return self.get(workspace_id)

    def delete(self, workspace_id: str) -> None:
        """Delete a workspace without users; its name is free then. Raises `NotFound`, and `Conflict` with users."""
        self._change(workspace_id, {"name": rows.deleted_name(workspace_id), "disabled": True})

    def _change(self, workspace_id: str, changes: dict[str, Any]) -> None:
        now = now_ms()
        deletes = changes.get("name") == rows.deleted_name(workspace_id)

        def work(tx: Transaction) -> Revoked:
            row = rows.lock(tx, workspace_id)
            # With `now`, it was this change that deleted it: the answer to an earlier commit was lost.
            if row is None or (row["name"] == rows.deleted_name(workspace_id) and row["changed_at"] != now):
                raise no_workspace(workspace_id)
            if workspace_id == DEFAULT_WORKSPACE and changes.keys() != {"guardrails"}:
                raise Conflict(f"The workspace {DEFAULT_NAME} is always there, under this name.")
            if deletes and rows.has_users(tx, workspace_id):
                raise Conflict("This workspace has users: delete them first.")
            if deletes and rows.has_documents(tx, workspace_id):
                raise Conflict("This workspace has documents: delete them first.")
            _record_change(tx, workspace_id, changes, deletes=deletes)
            if "disabled" not in changes:
                rows.update(tx, workspace_id, changes)
                return Revoked([], [])
            rows.update(tx, workspace_id, {**changes, "changed_at": now})
            return token_rows.revoke_workspace(tx, workspace_id, now)

        self._revocations.publish(self._db.transact(work))


def _record_change(tx: Transaction, workspace_id: str, changes: dict[str, Any], *, deletes: bool) -> None:
    subject, told = (
        f"workspace:{workspace_id}",
        {
            "renamed": "name" in changes,
            "disabled": changes.get("disabled"),
            "guardrails": "guardrails" in changes,
        },
    )
    if deletes:
        return record(tx, Action.WORKSPACE_DELETED, subject, workspace_id=workspace_id)
    record(tx, Action.WORKSPACE_CHANGED, subject, workspace_id=workspace_id, changes=told)


def no_workspace(named: str) -> NotFound:
    """Build the error for a workspace that does not exist, or that the caller may not know of."""
    return NotFound(f"There is no workspace {named}.")


def _workspace(row: Row) -> Workspace:
    return Workspace(**{name: row[name] for name in _FIELDS.split()})


def _parsed(guardrails: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return guardrails as they are stored; None: none. Raises `Invalid`."""
    try:
        parse_rails(guardrails)
    except ValueError as error:
        pointer, _, detail = str(error).partition(": ")
        raise fault(f"/guardrails{pointer.rstrip('/')}", detail) from None
    return dict(guardrails) or None


def _checked(name: str) -> str:
    if not NAME.fullmatch(name):
        raise fault("/name", "Use 1 to 63 of a-z 0-9 . -, a letter or digit first.")
    return name
