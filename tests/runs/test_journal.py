"""Writes of a step's transaction, in the order of its locks: see "Locks" in docs/architecture.md."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.runs.journal import Journal
from service.store.database import Transaction
from service.types import Event, RunEvent
from service.usage.tree import HoldRefused
from tests.runs.house import asked, run_of
from tests.usage.conftest import Make, make

__all__ = ["make"]


def test_money_is_written_last_after_its_lock(make: Make) -> None:
    written: list[str] = []

    def note(what: str, tx: Transaction) -> None:
        written.append(what)

    journal = Journal(make().db, run_of(asked("Hello")), lambda events: None, opening=lambda tx: True)
    journal.write_with_next(lambda tx: note("settle", tx))
    journal.commit(
        lambda tx: note("claim", tx), first=lambda tx: note("lock", tx), last=lambda tx: note("hold", tx)
    )
    assert written == ["claim", "lock", "settle", "hold"]


def test_the_beginning_of_a_step_is_told_once_its_hold_is_committed(make: Make) -> None:
    """Together with the run's own, without a gap, however many transactions are refused before."""
    told: list[list[tuple[int, Event]]] = []

    def publish(events: Sequence[RunEvent]) -> None:
        told.append([(event.seq, event.name) for event in events])

    def refuse(tx: Transaction) -> None:
        raise HoldRefused

    journal = Journal(make().db, run_of(asked("Hello")), publish, opening=lambda tx: True)
    journal.publish_after_commit(Event.RUN_STARTED, {})
    begins = [(Event.STEP_STARTED, {"step": 1})]
    for _ in range(2):
        with pytest.raises(HoldRefused):
            journal.commit(last=refuse, then=begins)
    assert told == []
    journal.commit(then=begins)
    assert told == [[(1, Event.RUN_STARTED), (2, Event.STEP_STARTED)]]
