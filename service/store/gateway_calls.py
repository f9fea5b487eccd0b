"""Tokens of runs, and the model calls that remote agents make with them.

The row of a token is the lock of its calls: a hold is written only while the run is running in the token's attempt, and
the sums that bound a run are read under that lock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from service.store.agent_stops import stopped
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import gateway_calls, holds, run_tokens, runs
from service.store.users import is_refused
from service.types import RunStatus, now_ms

OPEN, DONE, FAILED = "open", "done", "failed"
_calls, _tokens = gateway_calls.c, run_tokens.c


def add_token(tx: Transaction, row: dict[str, Any]) -> None:
    tx.execute(InsertOnce(run_tokens), row)


def has_token(tx: Transaction, digest: str) -> bool:
    """Return whether there was such a token, valid or not."""
    return tx.row(sa.select(_tokens.digest).where(_tokens.digest == digest)) is not None


def note_refused(tx: Transaction, digest: str, error: dict[str, Any]) -> None:
    tx.execute(sa.update(run_tokens).where(_tokens.digest == digest).values(refused=error))


def refused(tx: Transaction, digest: str) -> dict[str, Any] | None:
    row = tx.row(sa.select(_tokens.refused).where(_tokens.digest == digest))
    found: dict[str, Any] | None = None if row is None else row["refused"]
    return found


def end_token(tx: Transaction, digest: str) -> None:
    tx.execute(sa.update(run_tokens).where(_tokens.digest == digest).values(ended_at=now_ms()))


def _valid(now: int) -> list[sa.ColumnElement[bool]]:
    """Condition for tokens whose step is under way, joined with their runs."""
    return [
        runs.c.id == _tokens.run_id,
        runs.c.attempt == _tokens.attempt,
        runs.c.status == RunStatus.RUNNING,
        ~runs.c.cancel_requested,
        _tokens.ended_at.is_(None),
        _tokens.expires_at > now,
        ~is_refused(runs.c.user_id),
    ]


def valid(tx: Transaction, digests: Sequence[str]) -> dict[str, Row]:
    """Find the valid ones of these tokens, by digest; `stopped`: whether its agent or the run's is."""
    is_stopped = sa.or_(stopped(runs.c.agent), stopped(_tokens.agent))
    of_run = runs.c.user_id, runs.c.workspace_id, runs.c.key_id, is_stopped.label("stopped")
    query = sa.select(run_tokens, *of_run)
    found = tx.rows(query.where(*_valid(now_ms()), _tokens.digest.in_(digests)))
    return {row["digest"]: row for row in found}


def lock(tx: Transaction, digest: str) -> bool:
    """Lock a token for a write of one of its calls. False: its attempt does not execute the run any more."""
    tx.row(sa.select(_tokens.digest).where(_tokens.digest == digest).with_for_update())
    return digest in valid(tx, [digest])


def take_kept(tx: Transaction, run_id: str, attempt: int, digest: str) -> Row | None:
    """Take the answer that an earlier attempt got to this body, and that this attempt has not been given yet.

    Of several, the first. The caller holds the token's lock.
    """
    of_body = (
        _calls.run_id == run_id,
        _calls.digest == digest,
        _calls.state == DONE,
        _calls.answer.is_not(None),
    )
    earlier = _calls.attempt < attempt, _calls.replayed_by < attempt
    query = sa.select(gateway_calls).where(*of_body, *earlier).order_by(_calls.id).limit(1)
    row = tx.row(query)
    if row is not None:
        tx.execute(sa.update(gateway_calls).where(_calls.id == row["id"]).values(replayed_by=attempt))
    return row


def used(tx: Transaction, token: str) -> Row:
    """Count the calls made with a token: `calls` in all, and those that are `open`."""
    is_open = sa.func.coalesce(sa.func.sum(sa.case((_calls.state == OPEN, 1), else_=0)), 0)
    query = sa.select(sa.func.count().label("calls"), is_open.label("open"))
    return tx.rows(query.where(_calls.token == token))[0]


def spent(tx: Transaction, run_id: str) -> int:
    """Return what a run has spent and holds, in nano-dollars."""
    untold_cost = sa.func.coalesce(sa.func.sum(_calls.cost_nano), 0)
    untold = sa.select(untold_cost).where(_calls.run_id == run_id, ~_calls.told)
    held = sa.select(sa.func.coalesce(sa.func.sum(holds.c.amount_nano), 0)).where(holds.c.run_id == run_id)
    total = runs.c.cost_nano + untold.scalar_subquery() + held.scalar_subquery()
    row = tx.row(sa.select(total.label("total")).where(runs.c.id == run_id))
    return 0 if row is None else int(row["total"])


def insert(tx: Transaction, row: dict[str, Any]) -> None:
    """Insert a call that begins."""
    tx.execute(InsertOnce(gateway_calls), row)


def finish(tx: Transaction, call_id: str, user_id: str, values: dict[str, Any]) -> None:
    """Store the end of a call: state, model as it answered, usage, cost, and the answer that is kept."""
    sealed = tx.sealed(gateway_calls, {**values, "finished_at": now_ms()}, user_id)
    tx.execute(sa.update(gateway_calls).where(_calls.id == call_id, _calls.state == OPEN).values(**sealed))


def is_held(tx: Transaction, run_id: str, hold_id: str) -> bool:
    """Lock a hold. False: another has settled it."""
    query = sa.select(holds.c.id).where(holds.c.run_id == run_id, holds.c.id == hold_id)
    return tx.row(query.with_for_update()) is not None


def untold(tx: Transaction, run_id: str, branch: str) -> list[Row]:
    """List the ended calls that are no steps of the run yet, in the order of their beginnings, without answers."""
    columns = [column for column in gateway_calls.c if column.key != "answer"]
    query = sa.select(*columns).where(_calls.run_id == run_id, ~_calls.told, _calls.state != OPEN)
    return tx.rows(query.where(_calls.branch == branch).order_by(_calls.id))


def under_way(tx: Transaction, token: str) -> list[str]:
    """List the ids of the holds of a token's open calls."""
    query = sa.select(_calls.hold_id).where(_calls.token == token, _calls.state == OPEN)
    return [row["hold_id"] for row in tx.rows(query)]


def note_told(tx: Transaction, call_id: str) -> None:
    tx.execute(sa.update(gateway_calls).where(_calls.id == call_id).values(told=True))
