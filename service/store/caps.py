"""Caps as they were set, with overrides that end. Their counters: see `service.store.budgets`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction, clock_ms
from service.store.schema import api_keys, caps, sessions, users, workspaces
from service.store.statement import Statement, binds, listed
from service.store.users import DELETED
from service.store.visibility import in_workspace
from service.store.workspaces import deleted_name
from service.types import now_ms

NO_LIMIT = 10**18  # nano-dollars (a billion dollars): a lifted cap still counts spending

_OF_SCOPES = sa.select(caps).where(caps.c.scope.in_(sa.bindparam("scopes", expanding=True)))
_LOCKED = (
    sa.select(caps, clock_ms().label("now"))
    .where(caps.c.scope.in_(sa.bindparam("scopes", expanding=True)), caps.c.period == sa.bindparam("period"))
    .order_by(caps.c.scope)
    .with_for_update(read=True)
)
_AFTER = (
    sa.select(caps)
    .where(
        caps.c.scope != "service",
        sa.tuple_(caps.c.scope, caps.c.period) > sa.tuple_(sa.bindparam("scope"), sa.bindparam("period")),
        # Not an override that has ended, with no cap before it.
        sa.or_(caps.c.until.is_(None), caps.c.until > sa.bindparam("now"), caps.c.after_nano.is_not(None)),
    )
    .order_by(caps.c.scope, caps.c.period)
)


@cache
def _caps(count: int) -> Statement:
    wanted = sa.select(caps).where(caps.c.scope.in_(binds("scope", count)))
    return Statement(wanted.order_by(caps.c.scope, caps.c.period))


def workspace_of(tx: Transaction, kind: str, name: str) -> str | None:
    """Find the workspace of the workspace, user, key or session of this id. None: there is no such subject."""
    of_key = sa.select(api_keys.c.id, users.c.workspace_id).join(users, users.c.id == api_keys.c.user_id)
    query = {
        "workspace": sa.select(workspaces.c.id, workspaces.c.id.label("workspace_id")).where(
            workspaces.c.name != deleted_name(name)
        ),
        "user": sa.select(users.c.id, users.c.workspace_id).where(users.c.role != DELETED),
        "key": of_key.where(api_keys.c.revoked_at.is_(None)),
        "session": sa.select(sessions.c.id, sessions.c.workspace_id).where(sessions.c.expires_at > now_ms()),
    }[kind]
    row = tx.row(query.where(query.selected_columns.id == name))
    return None if row is None else str(row["workspace_id"])


def read(tx: Transaction, scopes: Sequence[str], expect: Sequence[Row] | None = None) -> list[Row]:
    """Read the caps of these scopes, in order of scopes and periods. `expect`: these caps, see `Transaction`."""
    return tx.rows(_caps(len(scopes)), listed("scope", scopes), expect=expect)


def of_scopes(tx: Transaction, scopes: Sequence[str]) -> list[Row]:
    """Read the caps of any number of scopes."""
    return tx.rows(_OF_SCOPES, {"scopes": scopes}) if scopes else []


def after(tx: Transaction, scope: str, period: str, limit: int, workspace_id: str | None) -> list[Row]:
    """Page of caps, or of a workspace's, after this one, in the database's order of scopes, then periods.

    Without the service's.
    """
    query = _AFTER.where(*in_workspace(caps, workspace_id)).limit(limit)
    return tx.rows(query, {"scope": scope, "period": period, "now": now_ms()})


def locked(tx: Transaction, scopes: Sequence[str], period: str) -> list[Row]:
    """Read the caps of one period and keep them from changing until this transaction ends.

    Each row has the database's time as `now`.
    """
    return tx.rows(_LOCKED, {"scopes": scopes, "period": period})


def put(
    tx: Transaction,
    scope: str,
    period: str,
    amount: int | None,
    workspace_id: str | None,
    until: int | None = None,
) -> None:
    """Set a cap, or override it `until` a time (ms). An override replaces another, not the cap before that.

    `workspace_id`: of its subject; None: the subject is gone, or belongs to none.
    """
    values: dict[str, Any] = {"amount_nano": amount, "until": until, "updated_at": now_ms()}
    values |= {} if workspace_id is None else {"workspace_id": workspace_id}
    before = sa.case(
        (caps.c.until.is_(None), sa.func.coalesce(caps.c.amount_nano, NO_LIMIT)), else_=caps.c.after_nano
    )
    key = sa.and_(caps.c.scope == scope, caps.c.period == period)
    changed = sa.update(caps).where(key).values(**values, after_nano=None if until is None else before)
    if tx.execute(changed) == 0:
        tx.execute(InsertOnce(caps), {"scope": scope, "period": period, **values})
