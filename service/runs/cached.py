"""Runs answered from the cache: result, events and rows of a run that is never executed."""

from __future__ import annotations

from typing import Any

from service.cache.entries import COST, STORED_FIELDS
from service.runs.result import Progress, result_of, started_of
from service.store import runs as rows
from service.store import steps as step_rows
from service.store.database import Transaction
from service.store.steps import NOTE
from service.types import Event, Run, RunEvent, RunStatus, now_ms


def complete(run: Run, answer: dict[str, Any]) -> int:
    """Complete a run with a cached answer; return the nano-dollars that it had cost."""
    run.status, run.finished_at, run.tier = RunStatus.SUCCEEDED, now_ms(), answer["tier"]
    run.result = {**result_of(run, None, Progress()), **{name: answer[name] for name in STORED_FIELDS}}
    return int(answer.get(COST, 0))


def events_of(run: Run) -> list[RunEvent]:
    """Build the events of a run answered from the cache."""
    assert run.result is not None
    events: list[tuple[Event, dict[str, Any]]] = [(Event.RUN_STARTED, started_of(run))]
    if run.result["output"]:
        events.append((Event.TEXT_DELTA, {"text": run.result["output"]}))
    events.append((Event.RUN_COMPLETED, run.result))
    return [RunEvent(name, data, seq) for seq, (name, data) in enumerate(events, 1)]


def write(tx: Transaction, run: Run) -> None:
    """Write the run's events, as one step row, and its end; its own row exists already."""
    *events, last = events_of(run)
    note = {
        "run_id": run.id,
        "n": 1,
        "kind": NOTE,
        "name": run.cache,
        "attempt": run.attempt,
        "reply": {},
        "cost_nano": 0,
        "started_at": run.created_at,
        "finished_at": run.finished_at,
        "events": [[event.seq, event.name, event.data] for event in events],
        "first_seq": 1,
        "last_seq": last.seq - 1,
    }
    step_rows.insert(tx, note, run.user_id)
    rows.record_end(tx, run)
