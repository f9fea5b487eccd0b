"""Recovery of a lost run's published events, and when sequence numbers jump."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from service.runs.events.event_stream import EventStream, StreamEntry
from service.runs.events.recovered import is_whole, replay_of
from service.runs.journal import NOTE
from service.runs.replay import JUMP
from service.types import Event, Run, RunEvent
from tests.runs.house import ASSISTANT, asked, run_of


def delta(seq: int) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": f"{seq} "}, seq)


def resumed(seq: int, from_seq: int) -> RunEvent:
    return RunEvent(Event.RUN_RESUMED, {"from_seq": from_seq}, seq)


def entry(attempt: int, *seqs: int, server: str | None = None) -> StreamEntry:
    return StreamEntry(attempt, [delta(seq) for seq in seqs], server)


def lost_run(attempt: int = 2, **changed: Any) -> Run:
    run = run_of(asked("Hello", ASSISTANT), door="stream")
    run.attempt = attempt
    for name, value in changed.items():
        setattr(run, name, value)
    return run


def kept(kind: str, attempt: int, *seqs: int) -> Mapping[str, Any]:
    events = [[seq, Event.TEXT_DELTA, {"text": f"{seq} "}] for seq in seqs]
    return {"kind": kind, "attempt": attempt, "events": events, "last_seq": seqs[-1], "reply": {}}


WHOLE = EventStream([entry(1, 1, 2, server="a"), entry(1, 3), entry(1, 4, 5)], "a")


def test_a_whole_stream_just_goes_on() -> None:
    told = replay_of(lost_run(), [kept("model", 1, 1, 2)], WHOLE)
    assert [event.seq for event in told.events] == [3, 4, 5]
    assert (told.last_seq, told.resumes_after) == (5, 5)


@pytest.mark.parametrize(
    ("stream", "changed"),
    [
        (None, {}),  # Redis is away
        (EventStream([], "a"), {}),  # it was wiped
        (WHOLE, {"live_gap_attempt": 1}),  # it was away while clients were told
        (WHOLE._replace(server="b"), {}),  # it was restarted, or another took over
        (WHOLE._replace(server=""), {}),  # it does not say which process it is
        (EventStream([entry(1, 1, 2)], "a"), {}),  # nor did it to whoever wrote
        (EventStream([entry(1, 4, 5, server="a")], "a"), {}),  # its beginning is gone
        (EventStream([entry(1, 1, 2, 3, server="a"), entry(1, 5)], "a"), {}),  # it has a hole
        (WHOLE, {"attempt": 3}),  # the last attempt never came as far as to Redis
    ],
)
def test_without_proof_numbers_jump(stream: EventStream | None, changed: dict[str, Any]) -> None:
    run = lost_run(**changed)
    told = replay_of(run, [kept("model", 1, 1, 2)], stream)
    assert told.last_seq >= JUMP * (run.attempt - 1) + 2
    assert told.resumes_after == 2


def test_numbers_jump_further_than_the_attempt_before_may_have_come() -> None:
    first = replay_of(lost_run(2), [], None).last_seq
    assert replay_of(lost_run(3), [], None).last_seq >= first + JUMP


def test_duplicate_entry_is_no_gap() -> None:
    """Redis took an entry whose answer was lost, so its events came again with those that followed."""
    assert is_whole(lost_run(), 0, EventStream([entry(1, 1, 2, server="a"), entry(1, 1, 2, 3)], "a"))


def test_void_events_may_be_missing() -> None:
    """The attempt before had no proof either, and has told so: only what it told has to be whole."""
    jumped = StreamEntry(2, [resumed(JUMP + 3, 2), delta(JUMP + 4)], "b")
    stream = EventStream([entry(1, 1, 2, 3, server="a"), StreamEntry(2, [], "b"), jumped], "b")
    assert is_whole(lost_run(3), 2, stream)
    assert not is_whole(lost_run(3, live_gap_attempt=2), 2, stream)
    late = StreamEntry(
        2, [resumed(9, 8), delta(10)], "b"
    )  # it says that what came before stands, and that is missing
    assert not is_whole(lost_run(3), 2, EventStream([late], "b"))


@pytest.mark.parametrize("stream", [None, EventStream([], "a"), WHOLE._replace(server="b")])
def test_a_run_that_stopped_by_itself_has_kept_all(stream: EventStream | None) -> None:
    rows: Sequence[Mapping[str, Any]] = [kept("model", 1, 1, 2), kept(NOTE, 1, 3, 4)]
    told = replay_of(lost_run(), rows, stream)
    assert [event.seq for event in told.events][:2] == [3, 4]
    assert told.last_seq < JUMP


def test_invoked_run_has_no_published_events() -> None:
    told = replay_of(lost_run(door="invoke"), [kept("model", 1, 1, 2)], None)
    assert (told.last_seq, told.resumes_after) == (2, 2)
