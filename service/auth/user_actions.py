"""Actions on users, as the audit records them."""

from __future__ import annotations

from typing import Any

from service.audit.record import Action, record
from service.auth.rates import limit_told
from service.store.database import Row, Transaction


def record_creation(tx: Transaction, row: Row) -> None:
    """Record that a user was created, with the row that `UserService.new_row` built."""
    role_and_limit = {name: row[name] for name in ("role", "limit_runs")}
    record(tx, Action.USER_CREATED, f"user:{row['id']}", workspace_id=row["workspace_id"], **role_and_limit)


def actions_of(changes: Row) -> dict[Action, dict[str, Any]]:
    """Return the actions to record for changed columns, with their details: never the password's hash."""
    told: dict[Action, dict[str, Any]] = {}
    if "role" in changes:
        told[Action.USER_ROLE] = {"role": changes["role"]}
    if "limit_runs" in changes:
        told[Action.USER_LIMIT] = limit_told(changes["limit_runs"], changes["limit_runs_until"])
    if "disabled" in changes:
        told[Action.USER_DISABLED if changes["disabled"] else Action.USER_ENABLED] = {}
    if "password_hash" in changes:
        told[Action.USER_PASSWORD] = {}
    return told
