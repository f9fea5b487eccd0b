"""Streamed runs, executed by their reader: complete however the client reads or disconnects."""

from __future__ import annotations

from collections.abc import Generator, Sequence

import pytest

from service.errors import Overloaded
from service.runs.start import Started
from service.types import RunEvent
from service.wiring import Services
from tests.runs import inside

TEXT = "[offline tokens=40 token_ms=2] A long answer, please."
Told = Generator[list[RunEvent]]


def begin(wired: Services) -> tuple[Started, Told]:
    return wired.runs.start.stream(inside.ADA, inside.request(TEXT, cache="bypass"), None, "req")


def assert_ended_well(wired: Services, started: Started) -> None:
    run = wired.runs.queries.get(started.run.id)
    assert run.status == "succeeded" and run.result is not None and len(run.result["output"]) > 40
    assert started.place is not None
    started.place.give()
    assert wired.runs.bulkhead.taken == 0
    seqs = [event.seq for batch in wired.runs.queries.follow(run.id) for event in batch]
    assert seqs == list(range(1, run.last_seq + 1))


def test_streamed_run_starts_before_its_first_read(wired: Services) -> None:
    started, told = begin(wired)
    assert wired.runs.queries.get(started.run.id).status == "running"
    told.close()


def test_reader_gets_every_event_in_order(wired: Services) -> None:
    started, told = begin(wired)
    seqs = [event.seq for batch in told for event in batch]
    assert seqs == list(range(1, started.run.last_seq + 1))
    assert_ended_well(wired, started)


def test_a_run_goes_on_when_its_reading_ends_early(wired: Services) -> None:
    started, told = begin(wired)
    next(told)
    next(told)
    told.close()
    assert_ended_well(wired, started)


def test_unread_run_is_executed(wired: Services) -> None:
    """As where the answer could not be begun, for a fault of ours."""
    started, told = begin(wired)
    del told
    assert_ended_well(wired, started)


class Full:
    """A client's connection that takes nothing."""

    def write(self, events: Sequence[RunEvent]) -> None:
        raise AssertionError("it had no room")

    def rest(self) -> bool:
        return True


def test_a_client_that_does_not_read_holds_up_no_run(wired: Services) -> None:
    """Once its run has ended, what it has not read is written by a thread that may wait."""
    started, told = begin(wired)
    first = next(told)
    assert started.listener is not None
    started.listener.writer = Full()
    rest = next(told)
    assert wired.runs.queries.get(started.run.id).status == "succeeded"
    assert [event.seq for event in (*first, *rest)] == list(range(1, started.run.last_seq + 1))
    assert list(told) == []


def test_no_more_begin_than_have_room(wired: Services) -> None:
    held = [begin(wired) for _ in range(wired.settings.request_places)]
    with pytest.raises(Overloaded):
        begin(wired)
    for started, told in held:
        told.close()
        assert started.place is not None
        started.place.give()
    assert wired.runs.bulkhead.taken == 0
