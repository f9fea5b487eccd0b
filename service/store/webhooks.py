"""Webhook deliveries: for ended runs, approvals that wait and notices, with attempts, claims and outcome."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from service.ids import new_id
from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import approval_webhooks, approvals, notices, runs, webhooks
from service.types import Run, RunStatus, public_fields, rfc3339

_KEYS = {"run": webhooks.c.run_id, "approval": approval_webhooks.c.approval_id, "notice": notices.c.id}
_OF_RUN = sa.select(webhooks).where(webhooks.c.run_id == sa.bindparam("run_id"))
# Columns of the run in the body; `input` is shortened, as in lists.
_RUN_COLUMNS = ("agent", "agent_version", "user_id", "door", "input")
# One that waited for money and goes on is told of at its end.
_TOLD = sa.or_(runs.c.finished_at.is_not(None), runs.c.status == RunStatus.WAITING_BUDGET)
_RUNS_DUE = (
    sa.select(
        webhooks,
        runs.c.status.label("run_status"),
        runs.c.finished_at,
        runs.c.last_seq,
        *(runs.c[name] for name in _RUN_COLUMNS),
    )
    .join(runs, runs.c.id == webhooks.c.run_id)
    .where(webhooks.c.next_at <= sa.bindparam("now"), _TOLD)
    .order_by(webhooks.c.next_at)
    .limit(sa.bindparam("limit"))
)
_NOTICES_DUE = (
    sa.select(notices)
    .where(notices.c.next_at <= sa.bindparam("now"))
    .order_by(notices.c.next_at)
    .limit(sa.bindparam("limit"))
)

# Fields of the approval in the body: none has words of the model or arguments of the call.
_APPROVAL_FIELDS = "id run_id user_id agent session_id input call_id name reason status created_at expires_at"
_APPROVALS_DUE = (
    sa.select(
        *(approval_webhooks.c[name] for name in ("url", "attempts", "next_at")),
        *(approvals.c[name] for name in _APPROVAL_FIELDS.split() if name not in ("session_id", "input")),
        runs.c.session_id,
        runs.c.input,
    )
    .join(approvals, approvals.c.id == approval_webhooks.c.approval_id)
    .join(runs, runs.c.id == approvals.c.run_id)
    .where(approval_webhooks.c.next_at <= sa.bindparam("now"))
    .order_by(approval_webhooks.c.next_at)
    .limit(sa.bindparam("limit"))
)

ANY_DUE = sa.or_(*(sa.exists().where(key.table.c.next_at <= sa.bindparam("now")) for key in _KEYS.values()))


class Due(NamedTuple):
    """Due delivery. `kind` is `run`, `approval` or `notice`, `name` the delivery id sent to the receiver.

    `claim_id` is random: it identifies the attempt that the reader of this row may claim.
    """

    kind: str
    id: str
    name: str
    url: str
    signer: str
    body: dict[str, Any]
    attempts: int
    next_at: int
    claim_id: str


def schedule(tx: Transaction, run: Run, url: str, now: int) -> None:
    """Schedule the webhook of a run that has ended or waits for money, perhaps once more."""
    pending = _pending(now)
    row = {"run_id": run.id, "url": url, "created_at": now, **pending}
    tx.execute(InsertOnce(webhooks), tx.sealed(webhooks, row, run.user_id))
    tx.execute(sa.update(webhooks).where(webhooks.c.run_id == run.id).values(**pending))


def schedule_approval(tx: Transaction, approval_id: str, run: Run, url: str, now: int) -> None:
    """Schedule the webhook of an approval of a run, once."""
    row = {"approval_id": approval_id, "run_id": run.id, "url": url, "created_at": now, **_pending(now)}
    tx.execute(InsertOnce(approval_webhooks), tx.sealed(approval_webhooks, row, run.user_id))


def notice(tx: Transaction, name: str, url: str, signer: str, body: dict[str, Any], now: int) -> None:
    """Schedule a notice, once for each `name`."""
    row = {"id": name, "url": url, "signer": signer, "body": body, "created_at": now}
    tx.execute(InsertOnce(notices), {**row, **_pending(now)})


def of_run(tx: Transaction, run_id: str) -> Row | None:
    return tx.row(_OF_RUN, {"run_id": run_id})


def due(tx: Transaction, now: int, limit: int) -> list[Due]:
    """List due deliveries, at most `limit` of each kind."""
    values = {"now": now, "limit": limit}
    return [
        *map(_of_run, tx.rows(_RUNS_DUE, values)),
        *map(_of_approval, tx.rows(_APPROVALS_DUE, values)),
        *map(_of_notice, tx.rows(_NOTICES_DUE, values)),
    ]


def claim(tx: Transaction, due: Due, next_at: int) -> bool:
    """Claim a due delivery for one attempt, exclusively until `next_at`. False: claimed by another."""
    key = _KEYS[due.kind]
    unclaimed = sa.update(key.table).where(
        key == due.id,
        key.table.c.status == "pending",
        key.table.c.attempts == due.attempts,
        key.table.c.next_at == due.next_at,
    )
    values = {"attempts": due.attempts + 1, "next_at": next_at, "claim_id": due.claim_id}
    if tx.execute(unclaimed.values(**values)) == 1:
        return True
    # A retry after a commit whose answer was lost finds its own claim.
    return tx.row(sa.select(key).where(key == due.id, key.table.c.claim_id == due.claim_id)) is not None


def delivered(tx: Transaction, due: Due, now: int) -> None:
    _settle(tx, due, {"status": "delivered", "next_at": None, "last_error": None, "delivered_at": now})


def attempt_failed(tx: Transaction, due: Due, error: str, *, final: bool) -> None:
    """Store a failed attempt; after a `final` one there is no other."""
    values = {"status": "failed", "next_at": None} if final else {}
    _settle(tx, due, {**values, "last_error": error[:256]})


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete at most `limit` notices from before `before` (ms); return how many. Runs delete their own webhooks."""
    old = sa.select(notices.c.id).where(notices.c.created_at < before).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(notices).where(notices.c.id.in_(old.scalar_subquery())))


def _pending(now: int) -> dict[str, Any]:
    return {
        "status": "pending",
        "attempts": 0,
        "next_at": now,
        "claim_id": None,
        "last_error": None,
        "delivered_at": None,
    }


def _of_run(row: Row) -> Due:
    columns = {name: row[name] for name in _RUN_COLUMNS}
    body = {"run_id": row["run_id"], "status": row["run_status"], **columns}
    name = f"{row['run_id']}-{row['finished_at'] or row['last_seq']}"
    attempt = row["attempts"], row["next_at"], new_id("clm")
    return Due("run", row["run_id"], name, row["url"], row["user_id"], body, *attempt)


def _of_approval(row: Row) -> Due:
    data = public_fields(row, _APPROVAL_FIELDS)
    body = {"type": "approval.required", "timestamp": rfc3339(row["created_at"]), "data": data}
    attempt = row["attempts"], row["next_at"], new_id("clm")
    return Due("approval", row["id"], row["id"], row["url"], row["user_id"], body, *attempt)


def _of_notice(row: Row) -> Due:
    delivery = row["url"], row["signer"], row["body"], row["attempts"], row["next_at"]
    return Due("notice", row["id"], row["id"], *delivery, new_id("clm"))


def _settle(tx: Transaction, due: Due, values: dict[str, object]) -> None:
    # The claimed attempt only: meanwhile the run may have been queued and ended again.
    key = _KEYS[due.kind]
    claimed = sa.update(key.table).where(key == due.id, key.table.c.claim_id == due.claim_id)
    tx.execute(claimed.values(**values))
