"""Rows of tool calls: claimed before they are made, so that no crash can make one twice unseen."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service.store.base import InsertOnce, Row, Transaction
from service.store.schema import tool_calls
from service.types import now_ms


def claim(tx: Transaction, run_id: str, step: int, call_id: str, name: str, arguments: dict[str, Any]) -> None:
    tx.execute(
        InsertOnce(tool_calls).values(
            run_id=run_id,
            call_id=call_id,
            step=step,
            name=name,
            arguments=arguments,
            status="claimed",
            claimed_at=now_ms(),
        )
    )


def report(tx: Transaction, run_id: str, call_id: str, status: str, result: dict[str, Any] | None) -> None:
    """`done` or `failed` with the result, or `unknown` when nobody can say whether it was made."""
    statement = sa.update(tool_calls).where(tool_calls.c.run_id == run_id, tool_calls.c.call_id == call_id)
    tx.execute(statement.values(status=status, result=result, finished_at=now_ms()))


def of_run(tx: Transaction, run_id: str) -> dict[str, Row]:
    """Every call of a run by its id."""
    query = sa.select(tool_calls).where(tool_calls.c.run_id == run_id)
    return {row["call_id"]: row for row in tx.rows(query)}
