"""A model step that can wait: put down to be answered in a batch, at the batch's price, and taken up again after.

The row of the step and the money held for it are written in one transaction, then the run goes back into the queue
and no worker holds it. Whoever takes it up finds the answer in the row, or parks the run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.llm.batch import as_json, of_json
from service.llm.client import ModelReply, ModelRequest
from service.runs.billing import booked, owe, settle
from service.runs.journal import Journal
from service.runs.journal_codec import reply_of
from service.store import batches, holds
from service.store.database import Database, Row, Transaction
from service.types import Run, Usage
from service.usage.prices import PriceTable
from service.usage.reservation import Settlement, WriteInTransaction
from service.usage.spending import Spending


class WaitsForBatch(Exception):
    """The run waits in the queue for a batch; no worker holds it until then."""


def can_wait(run: Run, request: ModelRequest) -> bool:
    """Only what the client sees of a task that may take a day: a classification is cheap, and the run waits for it."""
    return run.mode == "queue" and run.request.priority == "batch" and request.stream


@dataclass(frozen=True, slots=True)
class BatchSteps:
    """What became of steps that were put down."""

    db: Database
    spending: Spending
    prices: PriceTable

    def find(self, run: Run, step: int) -> Row | None:
        return self.db.query(lambda tx: batches.get(tx, run.id, step))

    def put_down(self, run: Run, step: int, request: ModelRequest) -> WriteInTransaction:
        """Make the work that puts a step down: written with its hold, else somebody might send it without one."""
        kept = as_json(request)
        return lambda tx: batches.add(tx, run.id, step, kept)

    def taken(self, row: Row, journal: Journal) -> tuple[ModelReply, int]:
        """The answer is used: settle it with the step. The reply with the usage that was booked; nano-dollars."""
        reply = reply_of(row["reply"])
        settlement = self.settlement(row, reply)
        journal.also(_both(settlement, row))
        return booked(reply, settlement), settlement.cost

    def given_up(self, row: Row, journal: Journal) -> None:
        """There is no answer, and nothing is charged for none: the step is asked by itself."""
        settlement = self.settlement(row, None)
        journal.also(lambda tx: batches.remove(tx, row["id"]))
        owe(journal, settlement)

    def settlement(self, row: Row, reply: ModelReply | None) -> Settlement:
        """To what a step has used; None: to nothing."""
        hold = self.db.query(lambda tx: holds.of_batch_item(tx, row["run_id"], row["step"]))
        if hold is None:  # settled before, in a commit whose answer was lost
            usage, source = (reply.usage, reply.usage_source) if reply else (Usage(), "reported")
            return Settlement(usage, 0, source, lambda tx: None)
        if reply is None:
            return self.spending.settle_unused(hold)
        return settle(self.spending, hold, self.prices.by_id(hold.price_id), of_json(row["request"]), reply)

    def forget(self, row: Row) -> None:
        """Of a run that has ended meanwhile: pay what was answered, and strike the row off."""
        reply = reply_of(row["reply"]) if row["reply"] else None
        self.db.transact(_both(self.settlement(row, reply), row))


def _both(settlement: Settlement, row: Row) -> Callable[[Transaction], Any]:
    def work(tx: Transaction) -> None:
        batches.remove(tx, row["id"])
        settlement.work(tx)

    return work
