"""Gateway calls as steps of their run: stored and told by the worker that executes it."""

from __future__ import annotations

import time
from collections.abc import Generator
from functools import partial

from service.auth.run_tokens import RunTokens, TokenStep, digest_of
from service.errors import SlipwayError
from service.runs.attempt import Attempt
from service.runs.billing import book_later
from service.runs.branch_journal import gateway_journal
from service.store import gateway_calls as rows
from service.store import holds
from service.store.database import Database
from service.types import Event, RunEvent, Usage
from service.usage.reservation import Spending

END_SECONDS = 5.0  # for calls under way to be settled, once their token has ended
LOOK_AGAIN = 0.1  # seconds


def book_untold(db: Database, attempt: Attempt) -> None:
    """Add calls that are no steps yet to the totals of their run, which ends before its agent is asked again."""
    run, journal = attempt.run, attempt.journal
    for row in db.query(lambda tx: rows.untold(tx, run.id, None)):
        journal.spent(Usage(*(row["usage"] or ())), row["cost_nano"], row["source"])
        journal.write_with_next(partial(rows.note_told, call_id=row["id"]))


class GatewaySteps:
    """Gateway calls of one agent in one attempt at a run."""

    def __init__(
        self, db: Database, spending: Spending, tokens: RunTokens, attempt: Attempt, agent: str
    ) -> None:
        self._db, self._spending, self._tokens, self._attempt = db, spending, tokens, attempt
        self._journal = gateway_journal(attempt.journal, agent)
        self._agent = agent
        self._token = ""
        self.model = ""  # of the last call that was told

    def begin(self, seconds: float, most_calls: int) -> str:
        """Issue a token for the next step of the run."""
        journal = self._attempt.journal
        step = TokenStep(journal.steps + 1, self._agent, journal.branch, self._attempt.tree)
        self._token = self._tokens.issue(self._attempt.run, step, seconds=seconds, most_calls=most_calls)
        return self._token

    def tell(self) -> Generator[RunEvent]:
        """Store the calls that have ended since as steps of the run, and publish their events."""
        run, journal, branch = self._attempt.run, self._journal, self._attempt.journal.branch
        for row in self._db.query(lambda tx: rows.untold(tx, run.id, branch)):
            usage = Usage(*(row["usage"] or ()))
            name, cost, source = f"model {row['id'][-6:]}", row["cost_nano"], row["source"]
            self.model = row["model"]
            about = {"call_id": row["id"], "model": row["model"]}
            started = {"step": journal.known_in_run + 1, "name": name, "kind": "model"}
            yield from journal.publish(Event.STEP_STARTED, {**started, **about})
            reply = {"content": [], "model": row["model"], "usage": list(usage), "state": row["state"]}
            journal.add_step("model", name, reply, usage=usage, cost_nano=cost, source=source)
            journal.write_with_next(partial(rows.note_told, call_id=row["id"]))
            used = {"step": journal.known_in_run, **about, **usage.public(cost, source)}
            journal.publish_after_commit(Event.USAGE, used)
            yield from journal.commit()

    def refusal(self) -> SlipwayError | None:
        """Return the error with which a call was refused at a bound of the run; None: none was."""
        return self._tokens.refusal(self._token)

    def end(self) -> Generator[RunEvent]:
        """End the token, wait for its calls to be settled, and tell them.

        Calls that are not settled in time are settled here, at their worst.
        """
        token, end = digest_of(self._token), time.monotonic() + END_SECONDS
        self._tokens.end(self._token)
        while (ids := self._db.query(lambda tx: rows.under_way(tx, token))) and time.monotonic() < end:
            time.sleep(LOOK_AGAIN)
        for hold in self._db.query(lambda tx: holds.of_run(tx, self._attempt.run.id)) if ids else ():
            if hold.id in ids:
                book_later(self._journal, self._spending.settle_worst(hold))
                yield from self._journal.commit()
        yield from self.tell()
