"""Batch steps: model calls that can wait, answered by the Batches API at its price.

The step's row and its hold are written in one transaction; the run then returns to the queue, owned by no worker. The
worker that claims it next finds the answer in the row, or parks the run again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from service.files import references
from service.llm.batch import as_json, of_json
from service.llm.client import ModelReply, ModelRequest
from service.runs.billing import book_later, booked, settle_reply
from service.runs.journal import Journal
from service.runs.journal_codec import decode_reply
from service.store import batches, holds
from service.store.database import Database, Row, Transaction
from service.store.transaction import WriteInTransaction
from service.types import Run, Usage
from service.usage.estimate import Settlement
from service.usage.prices import PriceTable
from service.usage.reservation import Spending


class WaitsForBatch(Exception):
    """Raised when the run waits in the queue for a batch; no worker holds it until then."""


def can_wait(run: Run, request: ModelRequest) -> bool:
    """Return whether a call can wait: the answer of a batch task. Classifications are cheap and not deferred.

    Nor are prompts with files: a batch of them could be gigabytes.
    """
    waits = run.mode == "queue" and run.request.priority == "batch" and request.stream
    return waits and not references(request.messages)


@dataclass(frozen=True, slots=True)
class BatchSteps:
    """Adds steps to batches, and takes their replies."""

    db: Database
    spending: Spending
    prices: PriceTable

    def find(self, run: Run, step: int) -> Row | None:
        return self.db.query(lambda tx: batches.get(tx, run.id, step))

    def add(self, run: Run, step: int, request: ModelRequest) -> WriteInTransaction:
        """Return the write that adds a step, for its hold's transaction: it must not be sent without a hold."""
        encoded = as_json(request)
        return lambda tx: batches.add(tx, run, step, encoded)

    def take(self, row: Row, journal: Journal) -> tuple[ModelReply, int]:
        """Settle a reply with its step. Return it with the booked usage, and its cost in nano-dollars."""
        reply = decode_reply(row["reply"])
        settlement = self.settlement(row, reply)
        journal.write_with_next(_both(settlement, row))
        return booked(reply, settlement), settlement.cost

    def give_up(self, row: Row, journal: Journal) -> None:
        """Settle a step without a reply, for which nothing is charged; the model is then called directly."""
        settlement = self.settlement(row, None)
        journal.write_with_next(lambda tx: batches.remove(tx, row["id"]))
        book_later(journal, settlement)

    def settlement(self, row: Row, reply: ModelReply | None) -> Settlement:
        """Settle a step to its reply's usage, or to nothing without a reply."""
        hold = self.db.query(lambda tx: holds.of_batch_item(tx, row["run_id"], row["step"]))
        if hold is None:  # settled already, by a commit whose acknowledgement was lost
            usage, source = (reply.usage, reply.usage_source) if reply else (Usage(), "reported")
            return Settlement(usage, 0, source, lambda tx: None)
        if reply is None:
            return self.spending.settle_unused(hold)
        return settle_reply(
            self.spending, hold, self.prices.by_id(hold.price_id), of_json(row["request"]), reply
        )

    def forget(self, row: Row) -> None:
        """Settle the step of a run that has ended meanwhile, and remove its row."""
        reply = decode_reply(row["reply"]) if row["reply"] else None
        self.db.transact(_both(self.settlement(row, reply), row))


def _both(settlement: Settlement, row: Row) -> Callable[[Transaction], Any]:
    def work(tx: Transaction) -> None:
        batches.remove(tx, row["id"])
        settlement.work(tx)

    return work
