"""Who leads, as the thread itself is told."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service import leading
from service.leading import come_back, lead, step_aside


def test_one_steps_aside_once_and_only_for_itself() -> None:
    told: list[str] = []
    lead(lambda: told.append("aside"))
    with ThreadPoolExecutor(1) as other:
        other.submit(step_aside).result()
    assert told == []
    step_aside()
    step_aside()
    assert told == ["aside"]


def test_whoever_leads_no_more_has_nothing_to_pass_on() -> None:
    told: list[str] = []
    lead(lambda: told.append("aside"))
    lead(None)
    step_aside()
    assert told == []


def test_of_those_who_come_back_one_at_a_time_goes_on() -> None:
    """Until it steps aside; what it led before is not passed on a second time."""
    going: list[int] = []
    most, change = [0], threading.Lock()

    def work(number: int) -> None:
        come_back()
        with change:
            going.append(number)
            most[0] = max(most[0], len(going))
        time.sleep(0.01)
        with change:
            going.remove(number)
        step_aside()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(24)))
    assert most == [1]


def test_nobody_waits_for_ever_for_one_who_forgot_to_step_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leading, "TURN_SECONDS", 0.05)
    with ThreadPoolExecutor(1) as forgetful, ThreadPoolExecutor(1) as other:
        forgetful.submit(come_back).result()
        other.submit(come_back).result(10)
        other.submit(step_aside).result()  # which is not its turn to end
        assert leading._turn.locked()
        forgetful.submit(step_aside).result()
        assert not leading._turn.locked()


def test_a_leader_that_comes_back_still_leads() -> None:
    told: list[str] = []
    lead(lambda: told.append("aside"))
    come_back()
    assert not leading._turn.locked()
    step_aside()
    assert told == ["aside"]
