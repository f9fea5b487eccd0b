"""Slots of a process, and the stop handles of its runs."""

from __future__ import annotations

import threading
import time

import pytest

from service.errors import RunCancelled
from service.runs.slots import Handle
from service.wiring import Services


def test_first_reason_wins_over_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    handle = Handle("run_x", -1.0)

    def cancelled_meanwhile() -> float:
        monkeypatch.undo()
        handle.stop("cancelled")
        return time.monotonic()

    monkeypatch.setattr(time, "monotonic", cancelled_meanwhile)
    with pytest.raises(RunCancelled):
        handle.check()


def test_slot_is_given_back_when_no_thread_can_be_started(
    wired: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = wired.runs.execution.slots
    before = slots.taken

    def exhausted(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", exhausted)
    assert not wired.runs.execution.take_up_in_background("run_x")
    assert slots.taken == before
