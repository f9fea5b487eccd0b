"""Ids: their shape, and their order by time."""

from __future__ import annotations

import re
import time

import pytest

from service.ids import first_id, new_id
from service.types import now_ms


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
