"""Rows of tool calls: claimed before they are made, so that no crash can make one twice unseen."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.database import InsertOnce, Row, Transaction
from service.store.schema import tool_calls
from service.types import now_ms


def claim(
    tx: Transaction,
    run_id: str,
    step: int,
    call_id: str,
    name: str,
    arguments: dict[str, Any],
    allowed_by: str | None,
) -> None:
    """A call is about to be made: for the first time, or again because the approval `allowed_by` says so.

    Until its result is there, `result` holds that approval: it allows the call to be made once, no more.
    """
    values = {
        "arguments": arguments,
        "status": "claimed",
        "result": {"allowed_by": allowed_by},
        "claimed_at": now_ms(),
    }
    mine = {"run_id": run_id, "call_id": call_id}
    if tx.execute(InsertOnce(tool_calls), {**mine, "step": step, "name": name, **values}) == 0:
        again = sa.update(tool_calls).where(tool_calls.c.run_id == run_id, tool_calls.c.call_id == call_id)
        tx.execute(again.values(**values))


def report(tx: Transaction, run_id: str, call_id: str, status: str, result: dict[str, Any]) -> None:
    """`done` or `failed`, with the result."""
    statement = sa.update(tool_calls).where(tool_calls.c.run_id == run_id, tool_calls.c.call_id == call_id)
    tx.execute(statement.values(status=status, result=result, finished_at=now_ms()))


def report_unknown(tx: Transaction, run_id: str, call_id: str) -> None:
    """Nobody can say whether the call took effect."""
    statement = sa.update(tool_calls).where(tool_calls.c.run_id == run_id, tool_calls.c.call_id == call_id)
    tx.execute(statement.values(status="unknown"))


def of_run(tx: Transaction, run_id: str) -> dict[str, Row]:
    """Every call of a run by its id."""
    query = sa.select(tool_calls).where(tool_calls.c.run_id == run_id)
    return {row["call_id"]: row for row in tx.rows(query)}
