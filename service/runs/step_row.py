"""Step row of a journal: a finished step, and the events published in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from service.store.database import Row
from service.store.steps import NOTE
from service.types import Run, RunEvent, RunStatus, now_ms


def step_row(
    run: Run, kind: str, name: str, reply: dict[str, Any], *, cost_nano: int, began: int
) -> dict[str, Any]:
    """Build the row of a step that ends now, without its number."""
    return {
        "run_id": run.id,
        "kind": kind,
        "name": name,
        "attempt": run.attempt,
        "reply": reply,
        "cost_nano": cost_nano,
        "started_at": began,
        "finished_at": now_ms(),
    }


def with_events(row: dict[str, Any], events: Sequence[RunEvent], last_seq: int) -> dict[str, Any]:
    """Add the events that the row stores; `last_seq` is the last number that the run has given."""
    listed = [[event.seq, event.name, event.data] for event in events]
    return {**row, "events": listed, "first_seq": events[0].seq if events else last_seq, "last_seq": last_seq}


def call_ids(rows: Iterable[Row]) -> set[str]:
    """Return the ids of the tool calls that models asked for."""
    blocks = [block for row in rows for block in row["reply"].get("content") or ()]
    return {block["id"] for block in blocks if block.get("type") == "tool_use"}


def waited_of(rows: Sequence[Row]) -> dict[str, Any] | None:
    """Return what the note of a run's last wait for a budget says; None: there was none."""
    notes = [row["reply"] for row in rows if (row["kind"], row["name"]) == (NOTE, RunStatus.WAITING_BUDGET)]
    return notes[-1] or None if notes else None
