"""Who leads, as the thread itself is told."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from service.leading import lead, step_aside


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
