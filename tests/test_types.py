"""Words that every room shares."""

from __future__ import annotations

import re
import time

import pytest

from service.types import Run, RunRequest, first_id, new_id, now_ms, rfc3339


def test_ids_have_one_shape_and_none_twice() -> None:
    made = {new_id("run") for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(re.fullmatch(r"run_[0-9a-hjkmnp-tv-z]{26}", each) for each in made)


def test_ids_sort_by_the_millisecond_they_were_made_in(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    for ms in (0, 1, 31, 32, 1_023, 1_024, 1_764_000_000_123, 1_764_000_000_124, 2**47):
        monkeypatch.setattr(time, "time_ns", lambda now=ms: now * 1_000_000)
        made.append(new_id("x"))
    assert made == sorted(made)


def test_timestamps_have_milliseconds() -> None:
    assert rfc3339(1_764_000_000_123) == "2025-11-24T16:00:00.123Z"
    assert rfc3339(1_764_000_000_007) == "2025-11-24T16:00:00.007Z"
    assert rfc3339(1_764_000_001_000) == "2025-11-24T16:00:01.000Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z" and rfc3339(None) is None


def test_first_id_separates_ids_before_and_after_a_moment() -> None:
    began = now_ms()
    made = new_id("run")
    assert first_id("run", began) <= made < first_id("run", now_ms() + 1)
    moments = [0, 1, 31, 32, 1_700_000_000_000, began, began + 1, 2**48 - 1]
    assert [first_id("run", ms) for ms in moments] == sorted(first_id("run", ms) for ms in moments)
    assert len(first_id("run", 0)) == len(made)


def test_ids_of_one_millisecond_sort_in_the_order_they_were_made() -> None:
    ids = [new_id("run") for _ in range(20_000)]  # some dozens a millisecond
    assert ids == sorted(ids) and len(set(ids)) == len(ids)


def test_run_has_the_mode_that_its_door_ends_with() -> None:
    """Events are kept live where a label does not tell."""
    doors = {
        "invoke": "wait",
        "stream": "stream",
        "task": "queue",
        "messages/invoke": "wait",
        "messages/stream": "stream",
        "a2a/task": "queue",
        "task/other": "stream",
        "other": "stream",
    }
    asked = RunRequest("assistant", ())
    assert {door: Run("run_1", "usr_1", "assistant", "1", door, asked).mode for door in doors} == doors
