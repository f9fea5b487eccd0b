"""Runs that wait for people: an agent that may refund after an approval, and the decisions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from service import approvals
from service.ids import new_id
from service.store import schema
from service.store.approvals import Decision
from service.store.database import Row
from service.types import Caller, Run
from service.wiring import Services
from tests.runs import inside, scripted

OPERATOR = Caller("usr_ada", "ada", "operator")
ASKS = f"{scripted.REACT}approvals: [refund]\n"


def begin(wired: Services, **fields: Any) -> Run:
    """Queue a run and execute it until it waits or ends."""
    asked = inside.request("Do it.", cache="bypass", **fields)
    run = wired.runs.start.queue(inside.ADA, asked, None, "req").run
    return go_on(wired, run)


def go_on(wired: Services, run: Run) -> Run:
    assert wired.runs.execution.take_up(run.id)
    return wired.runs.queries.get(run.id)


def asked(wired: Services, run: Run) -> list[Row]:
    """Approvals of a run, oldest first."""
    table = schema.approvals
    query = sa.select(table).where(table.c.run_id == run.id).order_by(table.c.id)
    return wired.infra.db.query(lambda tx: tx.rows(query))


def decide(wired: Services, row: Row, said: Any, **more: Any) -> bool:
    """Decide; return whether the run was queued."""
    decision = Decision(said, None, more.get("arguments"), new_id("dec"), more.get("digest"))
    return wired.infra.db.transact(lambda tx: approvals.decide(tx, OPERATOR, row["id"], decision))[1]


def made(wired: Services, run: Run) -> list[tuple[str, Any]]:
    """Calls that were made, by the claims of a run: names and arguments."""
    table = schema.tool_calls
    found = wired.infra.db.query(lambda tx: tx.rows(sa.select(table).where(table.c.run_id == run.id)))
    return [(row["name"], row["arguments"]) for row in found]
