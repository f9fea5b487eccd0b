"""Words that every room shares."""

from __future__ import annotations

from service.types import Run, RunRequest, rfc3339


def test_timestamps_have_milliseconds() -> None:
    assert rfc3339(1_764_000_000_123) == "2025-11-24T16:00:00.123Z"
    assert rfc3339(1_764_000_000_007) == "2025-11-24T16:00:00.007Z"
    assert rfc3339(1_764_000_001_000) == "2025-11-24T16:00:01.000Z"
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z" and rfc3339(None) is None


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
