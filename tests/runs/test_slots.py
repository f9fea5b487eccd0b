"""Slots of a process, and the stop handles of its runs."""

from __future__ import annotations

import time

import pytest

from service.errors import RunCancelled
from service.runs.slots import Handle
from service.wiring import Services
from tests.exhausted import no_threads


def test_first_reason_wins_over_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle("run_x", -1.0)

    def cancelled_meanwhile() -> float:
        monkeypatch.undo()
        handle.stop("cancelled")
        return time.monotonic()

    monkeypatch.setattr(time, "monotonic", cancelled_meanwhile)
    with pytest.raises(RunCancelled):
        handle.check()


def test_slot_is_given_back_when_no_thread_can_be_started(wired: Services) -> None:
    before = wired.runs.execution.slots.taken
    with no_threads():
        assert not wired.runs.execution.take_up_in_background("run_x")
    assert wired.runs.execution.slots.taken == before
