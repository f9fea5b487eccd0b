"""Tool calls, claimed before they are made, so that a crash cannot repeat one unnoticed."""

from __future__ import annotations

from typing import Any, NamedTuple

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import tool_calls
from service.types import Run, now_ms


class ToolCall(NamedTuple):
    """Tool call as claimed. `arguments`: the model's, or those of the person who approved it."""

    id: str
    name: str
    arguments: dict[str, Any]


def claim(tx: Transaction, run: Run, step: int, call: ToolCall, allowed_by: str | None) -> None:
    """Claim a call that is about to be made, for the first time or again by the approval `allowed_by`.

    Until the call is reported, `result` holds that approval, which allows one call only.
    """
    values = {
        "arguments": call.arguments,
        "status": "claimed",
        "result": {"allowed_by": allowed_by},
        "claimed_at": now_ms(),
    }
    sealed = tx.sealed(tool_calls, values, run.user_id)
    row = {"run_id": run.id, "call_id": call.id, "step": step, "name": call.name, **sealed}
    if tx.execute(InsertOnce(tool_calls), row) == 0:
        tx.execute(_update(run.id, call.id).values(**sealed))


def report(tx: Transaction, run: Run, call_id: str, status: str, result: dict[str, Any]) -> None:
    """Store the result of a call; `status` is `done` or `failed`."""
    values = {"status": status, "result": result, "finished_at": now_ms()}
    tx.execute(_update(run.id, call_id).values(**tx.sealed(tool_calls, values, run.user_id)))


def unclaim(tx: Transaction, run: Run, call_id: str, former: Row | None) -> None:
    """Forget the claim of a call that was not made; `former`: an earlier attempt's, which is in force again."""
    if former is None:
        mine = (tool_calls.c.run_id == run.id, tool_calls.c.call_id == call_id)
        tx.execute(sa.delete(tool_calls).where(*mine))
    else:
        kept = {name: former[name] for name in ("arguments", "status", "result", "claimed_at")}
        tx.execute(_update(run.id, call_id).values(**tx.sealed(tool_calls, kept, run.user_id)))


def report_unknown(tx: Transaction, run_id: str, call_id: str) -> None:
    """Mark a call whose effect is unknown: claimed and never reported."""
    tx.execute(_update(run_id, call_id).values(status="unknown"))


def of_run(tx: Transaction, run_id: str) -> dict[str, Row]:
    query = sa.select(tool_calls).where(tool_calls.c.run_id == run_id)
    return {row["call_id"]: row for row in tx.rows(query)}


def _update(run_id: str, call_id: str) -> sa.Update:
    return sa.update(tool_calls).where(tool_calls.c.run_id == run_id, tool_calls.c.call_id == call_id)
