"""Recovery of a run whose worker was lost: the steps that are kept, and the events that clients saw beyond them.

The live stream says how far clients were told, where it can be proven to hold all of it. Proof is no matter of clocks:
the last attempt must have written to it, to the server process that has it now (one that was restarted, or took over
from another, may have lost what it acknowledged last), without a hole since the last kept step, and without a note in
the database that it went on telling while Redis was away. Without proof, numbers jump and `run.resumed` says that all
that was told after the last kept step is void.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.runs.events.event_stream import EventStream, event_of
from service.runs.journal import NOTE
from service.runs.replay import Replay
from service.store.database import Row
from service.types import Event, Run, RunEvent


def replay_of(run: Run, kept: Sequence[Row], stream: EventStream | None) -> Replay:
    """Return the events of earlier attempts, for the next to replay. `stream` is None where Redis is away."""
    kept_seq = last_kept(kept)
    events = [event_of(item) for row in kept for item in row["events"] if item[0] > kept_seq]
    if run.mode != "wait" and stream is not None:
        events += [event for entry in stream.entries for event in entry.events if event.seq > kept_seq]
    lost = (
        run.resumed
        and run.mode != "wait"
        and not _kept_all(run, kept)
        and not is_whole(run, kept_seq, stream)
    )
    told = {event.seq: event for event in events}
    return Replay([told[seq] for seq in sorted(told)], kept_seq, lost=lost, attempts=run.attempt - 1)


def last_kept(rows: Sequence[Row]) -> int:
    """Return the last number of a kept step."""
    return max((row["last_seq"] for row in rows if row["kind"] != NOTE), default=0)


def is_whole(run: Run, kept_seq: int, stream: EventStream | None) -> bool:
    """Whether the live stream holds all that clients were told after number `kept_seq`."""
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
    return _without_hole([event for entry in stream.entries for event in entry.events], kept_seq)


def _without_hole(events: Sequence[RunEvent], kept_seq: int) -> bool:
    """Numbers may jump only where an event says that all before it is void; those that came already are skipped."""
    at = kept_seq
    for event in events:
        if event.seq <= at:
            continue
        voids = event.name is Event.RUN_RESUMED and event.data["from_seq"] <= kept_seq
        if event.seq != at + 1 and not voids:
            return False
        at = event.seq
    return True


def _kept_all(run: Run, kept: Sequence[Row]) -> bool:
    """The last attempt stopped by itself, so all that it told is kept."""
    return bool(kept) and (kept[-1]["kind"], kept[-1]["attempt"]) == (NOTE, run.attempt - 1)
