"""Recovery of a lost run's events: those of stored steps, and those clients saw beyond them.

The live stream shows which events clients got, if it is proven complete. The proof involves no clocks: the last attempt
must have written to it; the server process that accepted this must be the current one (after a restart or failover,
acknowledged writes may be lost); no number may be missing since the last stored step; and the database must not record
that publishing went on while Redis was unavailable. Without proof, numbers jump and `run.resumed` declares all events
after the last stored step void.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.runs.branch_rows import is_gateway_call
from service.runs.events.event_stream import EventStream, event_of
from service.runs.replay import Replay
from service.store.database import Row
from service.store.steps import NOTE
from service.types import Event, Run, RunEvent


def replay_of(run: Run, steps: Sequence[Row], stream: EventStream | None) -> Replay:
    """Build the replay of a resumed run from its stored steps and its live stream; None: Redis is unavailable."""
    stored_seq, finished_seq = _last_seq(steps), last_finished_seq(steps)
    events = [event_of(item) for row in steps for item in row["events"] if item[0] > finished_seq]
    if run.mode != "wait" and stream is not None:
        events += [event for entry in stream.entries for event in entry.events if event.seq > stored_seq]
    lost = (
        run.resumed
        and run.mode != "wait"
        and not _stored_all(run, steps)
        and not is_whole(run, stored_seq, stream)
    )
    by_seq = {event.seq: event for event in events}
    return Replay([by_seq[seq] for seq in sorted(by_seq)], finished_seq, lost=lost, attempts=run.attempt - 1)


def last_finished_seq(rows: Sequence[Row]) -> int:
    """Return the last event number of a finished step: a remote agent's goes on when its gateway calls are stored."""
    return _last_seq([row for row in rows if not is_gateway_call(row)])


def _last_seq(rows: Sequence[Row]) -> int:
    """Return the last event number of a stored step."""
    return max((row["last_seq"] for row in rows if row["kind"] != NOTE), default=0)


def is_whole(run: Run, stored_seq: int, stream: EventStream | None) -> bool:
    """Return whether the live stream has all events clients got after number `stored_seq`."""
    last = run.attempt - 1
    if (
        stream is None
        or not stream.entries
        or stream.entries[-1].attempt != last
        or run.live_gap_attempt == last
    ):
        return False
    servers = [entry.server for entry in stream.entries if entry.server is not None]
    if not stream.server or not servers or servers[-1] != stream.server:
        return False
    return _is_contiguous([event for entry in stream.entries for event in entry.events], stored_seq)


def _is_contiguous(events: Sequence[RunEvent], stored_seq: int) -> bool:
    """Return whether the events follow each other from `stored_seq` on; an event that voids all before it may jump."""
    at = stored_seq
    for event in events:
        if event.seq <= at:
            continue
        voids = event.name is Event.RUN_RESUMED and event.data["from_seq"] <= stored_seq
        if event.seq != at + 1 and not voids:
            return False
        at = event.seq
    return True


def _stored_all(run: Run, steps: Sequence[Row]) -> bool:
    """Return whether the last attempt stopped by itself, so that all its events are stored."""
    return bool(steps) and (steps[-1]["kind"], steps[-1]["attempt"]) == (NOTE, run.attempt - 1)
