"""Gateway calls as steps of their run: stored and told by the worker that executes it."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import partial

from service.auth.run_tokens import RunTokens
from service.runs.attempt import Attempt
from service.runs.billing import book_later
from service.runs.branch_journal import BranchJournal
from service.store import gateway_calls as rows
from service.store import holds
from service.store.database import Database
from service.types import Event, RunEvent, Usage
from service.usage.reservation import Spending

BRANCH = "gateway"
END_SECONDS = 5.0  # for calls under way to be settled, once their token has ended
LOOK_AGAIN = 0.1  # seconds


class GatewaySteps:
    """Gateway calls of one attempt at a run."""

    def __init__(
        self, db: Database, spending: Spending, tokens: RunTokens, attempt: Attempt, agent: str
    ) -> None:
        self._db, self._spending, self._tokens, self._attempt = db, spending, tokens, attempt
        self._journal = BranchJournal(attempt.journal, agent, BRANCH)
        self._journal.count_stored()

    def tell(self) -> Generator[RunEvent]:
        """Store the calls that have ended since as steps of the run, and publish their events."""
        run, journal = self._attempt.run, self._journal
        for row in self._db.query(lambda tx: rows.untold(tx, run.id)):
            usage = Usage(*(row["usage"] or ()))
            name = f"model {row['id'][-6:]}"
            started = {"step": journal.known_in_run + 1, "name": name, "kind": "model", "model": row["model"]}
            yield from journal.publish(Event.STEP_STARTED, started)
            cost, source = row["cost_nano"], row["source"]
            reply = {"content": [], "model": row["model"], "usage": list(usage), "state": row["state"]}
            journal.add_step("model", name, reply, usage=usage, cost_nano=cost, source=source)
            journal.write_with_next(partial(rows.note_told, call_id=row["id"]))
            used = {"step": journal.known_in_run, "model": row["model"], **usage.public(cost, source)}
            journal.publish_after_commit(Event.USAGE, used)
            yield from journal.commit()

    def end(self, token: str) -> Generator[RunEvent]:
        """End the token, wait for its calls to be settled, and tell them.

        Calls that are not settled in time are settled here, at their worst.
        """
        run = self._attempt.run
        self._tokens.end(token)
        end = time.monotonic() + END_SECONDS
        while self._any_open() and time.monotonic() < end:
            time.sleep(LOOK_AGAIN)
        if self._any_open():
            for hold in self._db.query(lambda tx: holds.of_run(tx, run.id)):
                book_later(self._journal, self._spending.settle_worst(hold))
                yield from self._journal.commit()
        yield from self.tell()

    def _any_open(self) -> bool:
        run = self._attempt.run
        return self._db.query(lambda tx: rows.any_open(tx, run.id, run.attempt))
