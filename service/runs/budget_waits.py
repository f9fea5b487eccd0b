"""Waits for money: a run that meets a spending cap is left, and goes on once the cap has room for its next call.

A run that waits has no worker, thread, lease or hold. The sweep looks at a page of such runs at a time, and queues
those whose next call fits every cap, as many as fit at once: the others stay as they are.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from service.agents.pattern import Events
from service.errors import BudgetExceeded, SlipwayError
from service.runs.attempt import Attempt
from service.store import budget_waits as rows
from service.store import runs
from service.store.database import Database, Row
from service.store.holds import scopes_of
from service.types import Event, Run, RunStatus, now_ms, rfc3339, usd
from service.usage.budgets import Budgets
from service.usage.caps import Standing
from service.webhooks import Webhooks

PAGE = 200  # waiting runs of one look
LOOK_SECONDS = 1.0  # for further pages, while runs are found that go on
MOST_QUEUED = 1_000  # runs that one process has queued, and that no worker has taken up yet


class Given(NamedTuple):
    """Room in nano-dollars that a queued run was given, and the ids of the caps that have it."""

    needed: int
    caps: Sequence[str]


class Wait(NamedTuple):
    """Wait of a run before its next step, as its note keeps it: for `needed` nano-dollars, until a time (ms)."""

    steps: int
    needed: int
    scopes: Sequence[str]
    until: int


class BudgetWaits:
    """Waits of runs for money, one per process. One wait takes `seconds` at most."""

    def __init__(self, db: Database, budgets: Budgets, webhooks: Webhooks, seconds: int) -> None:
        self._db = db
        self._budgets = budgets
        self._webhooks = webhooks
        self._seconds = seconds
        self._after = ""  # the run after which the next look begins
        self._given: dict[str, Given] = {}  # by queued run
        # Called when runs were queued, or may be by the next look.
        self.woken: Callable[[], None] = lambda: None

    def wait_of(self, attempt: Attempt, error: SlipwayError) -> Wait | None:
        """Return the wait of a run whose call does not fit a cap. None: it does not wait, or has waited long enough."""
        run, journal = attempt.run, attempt.journal
        if run.request.on_cap != "pause" or not isinstance(error, BudgetExceeded) or error.needed is None:
            return None
        steps, before, now = journal.known_steps, journal.waited, now_ms()
        until = now + self._seconds * 1000
        if before is not None and before["steps"] == steps:  # no step was made since
            until = before["until"]
        return Wait(steps, error.needed, scopes_of_run(run), until) if now < until else None

    def leave(self, attempt: Attempt, wait: Wait, error: SlipwayError) -> Events[None]:
        """Leave the run waiting. Client and webhook are told once for each step, however often it waits there."""
        run, journal = attempt.run, attempt.journal
        told = journal.waited is not None and journal.waited["steps"] == wait.steps
        if not told:
            journal.publish_after_commit(Event.BUDGET_REQUIRED, required(wait, error))
        release = partial(runs.wait_for_budget, until=wait.until)
        works = [] if told else [partial(self._webhooks.schedule, run=run)]
        yield from journal.leave(RunStatus.WAITING_BUDGET, release, works, about=wait._asdict())

    def caps_changed(self) -> None:
        """Look at all waiting runs again, from the oldest on, at the next sweep, which is due at once."""
        self._after = ""
        self.woken()

    def look(self) -> None:
        """Queue the runs of the next page whose call fits by now, or whose time is up; go on while there are some."""
        end = time.monotonic() + LOOK_SECONDS
        while True:
            queued = self._db.query(partial(rows.still_queued, run_ids=list(self._given)), patience=0)
            self._given = {run_id: self._given[run_id] for run_id in queued}
            if len(queued) >= MOST_QUEUED:
                return
            page = self._db.query(partial(rows.page, after=self._after, limit=PAGE), patience=0)
            self._after = page[-1]["id"] if len(page) == PAGE else ""
            fitting = self._fitting(page) if page else []
            if not fitting:
                return
            self._db.transact(partial(rows.wake, run_ids=fitting), patience=1)
            self.woken()
            if not self._after or time.monotonic() > end:
                return

    def _fitting(self, page: Sequence[Row]) -> list[str]:
        """Return those whose time is up, and, oldest first, as many as fit their caps together."""
        scopes = sorted({scope for row in page for scope in row["reply"].get("scopes", ())})
        caps: dict[str, list[Standing]] = defaultdict(list)
        for state in self._db.query(partial(self._budgets.of_many, scopes=scopes), patience=0):
            caps[state.cap.scope].append(state)
        left = {state.cap.id: state.left for states in caps.values() for state in states}
        for needed, ids in self._given.values():
            left |= {cap: left[cap] - needed for cap in ids if cap in left}
        fitting, now = [], now_ms()
        for row in page:
            needed = row["reply"].get("needed", 0)
            ids = [state.cap.id for scope in row["reply"].get("scopes", ()) for state in caps[scope]]
            fits = all(left[cap] >= needed for cap in ids)
            if fits:
                left |= {cap: left[cap] - needed for cap in ids}
                self._given[row["id"]] = Given(needed, ids)
            if fits or row["wake_at"] <= now:
                fitting.append(row["id"])
        return fitting


def required(wait: Wait, error: SlipwayError) -> dict[str, object]:
    """Build the data of the `budget.required` event: the cap as the caller may see it."""
    return {
        "step": wait.steps + 1,
        "budget": error.extra["budget"],
        "needed_usd": usd(wait.needed),
        "expires_at": rfc3339(wait.until),
    }


def scopes_of_run(run: Run) -> list[str]:
    """List the scopes whose caps a run's calls count against."""
    return scopes_of(
        workspace_id=run.workspace_id,
        user_id=run.user_id,
        key_id=run.key_id,
        agent=run.agent,
        session_id=run.request.session_id,
        end_user=run.request.end_user,
    )
