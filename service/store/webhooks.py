"""Rows of webhooks: whom to tell that a run has ended, or of what else, and how far that has come."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import notices, runs, webhooks
from service.types import new_id

_KEYS = {"run": webhooks.c.run_id, "notice": notices.c.id}
_OF_RUN = sa.select(webhooks).where(webhooks.c.run_id == sa.bindparam("run_id"))
# What the receiver is told of the run; `input` is cut, as in lists.
_ABOUT = ("agent", "agent_version", "user_id", "door", "input")
_RUNS_DUE = (
    sa.select(
        webhooks, runs.c.status.label("run_status"), runs.c.finished_at, *(runs.c[name] for name in _ABOUT)
    )
    .join(runs, runs.c.id == webhooks.c.run_id)
    .where(webhooks.c.next_at <= sa.bindparam("now"), runs.c.finished_at.is_not(None))
    .order_by(webhooks.c.next_at)
    .limit(sa.bindparam("limit"))
)
_NOTICES_DUE = (
    sa.select(notices)
    .where(notices.c.next_at <= sa.bindparam("now"))
    .order_by(notices.c.next_at)
    .limit(sa.bindparam("limit"))
)


class Due(NamedTuple):
    """A delivery whose time has come. `kind` is `run` or `notice`, `name` what the receiver knows it by.

    `claim_id` is random: the one attempt that whoever has read this may claim.
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


def due_now(tx: Transaction, run_id: str, url: str, now: int) -> None:
    """The run has ended (perhaps once more): tell it from now on."""
    first = _first(now)
    tx.execute(InsertOnce(webhooks), {"run_id": run_id, "url": url, "created_at": now, **first})
    tx.execute(sa.update(webhooks).where(webhooks.c.run_id == run_id).values(**first))


def notice(tx: Transaction, name: str, url: str, signer: str, body: dict[str, Any], now: int) -> None:
    """Tell this from now on: once for each `name`, however often it is said here."""
    row = {"id": name, "url": url, "signer": signer, "body": body, "created_at": now}
    tx.execute(InsertOnce(notices), {**row, **_first(now)})


def of_run(tx: Transaction, run_id: str) -> Row | None:
    return tx.row(_OF_RUN, {"run_id": run_id})


def due(tx: Transaction, now: int, limit: int) -> list[Due]:
    """Deliveries whose time has come, at most `limit` of each kind."""
    asked = {"now": now, "limit": limit}
    return [
        *map(_of_run, tx.rows(_RUNS_DUE, asked)),
        *map(_of_notice, tx.rows(_NOTICES_DUE, asked)),
    ]


def claim(tx: Transaction, due: Due, next_at: int) -> bool:
    """Take a due delivery for one attempt; nobody else tries before `next_at`. False: somebody has it."""
    key = _KEYS[due.kind]
    mine = sa.update(key.table).where(
        key == due.id,
        key.table.c.status == "pending",
        key.table.c.attempts == due.attempts,
        key.table.c.next_at == due.next_at,
    )
    taken = {"attempts": due.attempts + 1, "next_at": next_at, "claim_id": due.claim_id}
    if tx.execute(mine.values(**taken)) == 1:
        return True
    # A commit whose answer was lost: it is claimed, and this is the second try.
    return tx.row(sa.select(key).where(key == due.id, key.table.c.claim_id == due.claim_id)) is not None


def delivered(tx: Transaction, due: Due, now: int) -> None:
    _settle(tx, due, {"status": "delivered", "next_at": None, "last_error": None, "delivered_at": now})


def missed(tx: Transaction, due: Due, error: str, *, final: bool) -> None:
    """The attempt came to nothing; after a `final` one there is no other."""
    values = {"status": "failed", "next_at": None} if final else {}
    _settle(tx, due, {**values, "last_error": error[:256]})


def expire(tx: Transaction, before: int, limit: int) -> int:
    """Delete notices from before `before` (ms), at most `limit`; how many. A run's webhook goes with the run."""
    old = sa.select(notices.c.id).where(notices.c.created_at < before).limit(limit)
    old = old.with_for_update(skip_locked=True)
    return tx.execute(sa.delete(notices).where(notices.c.id.in_(old.scalar_subquery())))


def _first(now: int) -> dict[str, Any]:
    return {
        "status": "pending",
        "attempts": 0,
        "next_at": now,
        "claim_id": None,
        "last_error": None,
        "delivered_at": None,
    }


def _of_run(row: Row) -> Due:
    about = {name: row[name] for name in _ABOUT}
    body = {"run_id": row["run_id"], "status": row["run_status"], **about}
    name = f"{row['run_id']}-{row['finished_at']}"
    when = row["attempts"], row["next_at"], new_id("clm")
    return Due("run", row["run_id"], name, row["url"], row["user_id"], body, *when)


def _of_notice(row: Row) -> Due:
    told = row["url"], row["signer"], row["body"], row["attempts"], row["next_at"]
    return Due("notice", row["id"], row["id"], *told, new_id("clm"))


def _settle(tx: Transaction, due: Due, values: dict[str, object]) -> None:
    # Of the claimed attempt only: the run may have been sent off again, and ended again, meanwhile.
    key = _KEYS[due.kind]
    claimed = sa.update(key.table).where(key == due.id, key.table.c.claim_id == due.claim_id)
    tx.execute(claimed.values(**values))
