"""Dispatch of due slots: each becomes a queued run of the schedule's owner, or an outcome that says why not.

Slot, run and the schedule's next slot are one transaction, under the lock of the schedule. So a process that dies
leaves the slot to the next one, and no two of them make a run for it.
"""

from __future__ import annotations

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from service.agents.catalog import AgentCatalog
from service.audit.record import Action
from service.auth.on_behalf import present_caller
from service.errors import (
    AgentStopped,
    DatabaseUnavailable,
    InvalidToken,
    Overloaded,
    SlipwayError,
    Unavailable,
)
from service.observe import genai, tracing
from service.observe.metrics import Metrics
from service.observe.tracing import Tracer, Within
from service.runs.new_run import NewRuns
from service.runs.recovery.supervisor import Wakeup
from service.schedules.cron import Cron
from service.schedules.plan import MOST_MISSED, Plan, plan
from service.schedules.schedules import check_rights, outcome, tell
from service.store import schedules as rows
from service.store.actor import SERVICE, Actor, acting_as
from service.store.database import Database, Row, Transaction
from service.store.visibility import UNRESTRICTED
from service.types import Run, RunRequest, RunStatus

log = logging.getLogger("slipway.schedules")
DOOR = "schedule/task"
PAGE = 50  # schedules looked up at once


class Decision(NamedTuple):
    """Decision about the due slots of a schedule, at a time by the database's clock."""

    plan: Plan
    outcome: str  # of `plan.slot`, if any
    at: int


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Dispatches due slots. One per process, which has one thread for it at a time."""

    db: Database
    catalog: AgentCatalog
    new_runs: NewRuns
    wakeup: Wakeup
    metrics: Metrics
    draining: Callable[[], bool]
    tracer: Tracer = tracing.OFF
    _busy: threading.Lock = field(default_factory=threading.Lock)

    def dispatch_in_background(self) -> None:
        """Dispatch in a new thread: the supervisor must not wait for it."""
        if not self._busy.locked():
            threading.Thread(target=self._guarded, name="schedules", daemon=True).start()

    def dispatch(self) -> None:
        """Dispatch all slots that are due. Raises `DatabaseUnavailable`."""
        if not self._busy.acquire(blocking=False):
            return
        try:
            after = (0, "")
            while page := self.db.query(partial(rows.due, after=after, limit=PAGE)):
                after = (page[-1]["next_at"], page[-1]["id"])
                random.shuffle(page)  # other processes have the same list
                for schedule in page:
                    self._drain(schedule["id"])
        finally:
            self._busy.release()

    def _guarded(self) -> None:
        try:
            self.dispatch()
        except DatabaseUnavailable:  # logged by `service.store.outages`; the next sweep tries again
            pass
        except Exception:
            log.exception("schedules_failed")

    def _drain(self, schedule_id: str) -> None:
        """Decide the due slots of one schedule, of which one fault must not keep the others waiting."""
        try:
            for _ in range(MOST_MISSED + 1):
                row = self.db.query(lambda tx: rows.get(tx, schedule_id, UNRESTRICTED))
                if row is None or self.draining() or not self._next(row):
                    return
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("schedule_failed", extra={"schedule_id": schedule_id})

    def _next(self, row: Row) -> bool:
        """Decide the next slot of a schedule. False: none is due, or another process decides."""
        try:
            with self._span(row):
                run = self._run_of(row)
            self.new_runs.queue.take(run.user_id)
            write = self.new_runs.opening(run, None)
            with acting_as(Actor.of(run)):
                decision = self.db.transact(lambda tx: _decide(tx, row, run.id, write))
        except SlipwayError as error:
            if isinstance(error, Unavailable) and not isinstance(error, AgentStopped | Overloaded):
                raise  # due until the database is back
            return self._refuse(row, error)
        if decision is not None and decision.outcome == "run":
            self.wakeup.ring([run.id])
        return self._told(row, decision, run_id=run.id)

    def _span(self, row: Row) -> Within:
        """Begin the trace of a run that no request starts."""
        about = {genai.SCHEDULE: row["id"], genai.AGENT: row["agent"]}
        return tracing.root(self.tracer, f"schedule {row['agent']}", about)

    def _refuse(self, row: Row, error: SlipwayError) -> bool:
        with acting_as(SERVICE):
            decision = self.db.transact(lambda tx: _decide_refused(tx, row, error))
        return self._told(row, decision, error_code=error.code)

    def _run_of(self, row: Row) -> Run:
        """Make the run of the owner's that a slot becomes, with the rights that they have now."""
        caller = self.db.query(lambda tx: present_caller(tx, row["user_id"], row["key_id"]))
        check_rights(self.catalog, caller, row["agent"])
        request = RunRequest(
            row["agent"],
            ({"role": "user", "content": row["input"]},),
            row["session_id"],
            on_conflict="queue",
            cap_nano=row["cap_nano"],
            schedule_id=row["id"],
            door=DOOR,
        )
        run = self.new_runs.make(caller, request, "queue", row["id"])
        run.status, run.attempt, run.started_at = RunStatus.QUEUED, 0, None
        return run

    def _told(self, row: Row, decision: Decision | None, **about: str) -> bool:
        """Log and count a decision. False: it was another process's."""
        if decision is None:
            return False
        agent, (skipped, slot, _) = row["agent"], decision.plan
        of_it = {"schedule_id": row["id"], "agent": agent}
        if skipped is not None:
            self.metrics.schedule_slots(agent, "skipped")
            log.warning("schedule_skipped", extra={**of_it, "slot": skipped[0], "until": skipped[1]})
        if slot is None or not decision.outcome:
            return True
        late = decision.at - slot
        about_slot = {**of_it, "slot": slot, "late_ms": late, **about}
        if decision.outcome == "refused":
            self.metrics.schedule_slots(agent, "refused")
            log.warning("schedule_refused", extra=about_slot)
        else:
            self.metrics.schedule_slots(agent, "run", late / 1000)
            log.info("schedule_run", extra=about_slot)
        return True


def _decide(
    tx: Transaction, row: Row, run_id: str, opening: Callable[[Transaction], object]
) -> Decision | None:
    """Decide due slots of a schedule that may run. None: another process does, or did."""
    found = _planned(tx, row)
    if found is None:
        return None
    slot, at = found.plan.slot, found.at
    name = ""
    # One that has its outcome was decided before the clock went back.
    if slot is not None and rows.decided(tx, row["id"], slot) is None:
        opening(tx)
        rows.decide(tx, outcome(row, slot, slot, "run", at, run_id=run_id))
        name = "run"
    rows.update(tx, row, {"next_at": found.plan.next_at})
    return found._replace(outcome=name)


def _decide_refused(tx: Transaction, row: Row, error: SlipwayError) -> Decision | None:
    """Decide due slots of a schedule that may not run; one whose owner or key has ended is stopped."""
    found = _planned(tx, row)
    if found is None:
        return None
    slot, name = found.plan.slot, ""
    if slot is not None:
        rows.decide(tx, outcome(row, slot, slot, "refused", found.at, code=error.code))
        name = "refused"
    changes: dict[str, Any] = {"next_at": found.plan.next_at}
    if isinstance(error, InvalidToken):
        changes = {"next_at": None, "enabled": False, "stopped": error.code}
        tell(tx, Action.SCHEDULE_STOPPED, row, code=error.code)
    rows.update(tx, row, changes)
    return found._replace(outcome=name)


def _planned(tx: Transaction, row: Row) -> Decision | None:
    """Lock a schedule, plan for its due slots, and tell which are skipped."""
    now = rows.take_due(tx, row)
    if now is None:
        return None
    made = plan(Cron(row["cron"], row["timezone"]), row["missed"], row["next_at"], now)
    if made.skipped is not None:
        rows.decide(tx, outcome(row, *made.skipped, "skipped", now, code="missed"))
    return Decision(made, "", now)
