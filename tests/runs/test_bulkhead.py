"""Places: how many requests of one process may run, wait or follow, of one user and in all."""

from __future__ import annotations

import pytest

from service.errors import Overloaded, RateLimited
from service.runs.bulkhead import Bulkhead, Permit


def test_no_more_than_there_are() -> None:
    bulkhead = Bulkhead(total=3, each=3)
    taken = [bulkhead.take(f"usr_{number}") for number in range(3)]
    with pytest.raises(Overloaded) as full:
        bulkhead.take("usr_9")
    assert full.value.retry_after == 1
    taken.pop().give()
    bulkhead.take("usr_9")


def test_one_user_leaves_some_for_others() -> None:
    bulkhead = Bulkhead(total=10, each=4)
    for _ in range(4):
        bulkhead.take("usr_ada")
    with pytest.raises(RateLimited):
        bulkhead.take("usr_ada")
    bulkhead.take("usr_bob")


def test_readers_leave_half_for_runs() -> None:
    bulkhead = Bulkhead(total=6, each=6)
    for _ in range(3):
        bulkhead.take("usr_ada", reads=True)
    with pytest.raises(Overloaded):
        bulkhead.take("usr_bob", reads=True)
    for _ in range(3):
        bulkhead.take("usr_bob")
    assert bulkhead.taken == 6


def test_a_place_is_given_back_once() -> None:
    bulkhead = Bulkhead(total=2, each=2)
    with bulkhead.take("usr_ada") as first:
        second: Permit = bulkhead.take("usr_ada", reads=True)
        second.give()
        second.give()
        assert bulkhead.taken == 1
    first.give()
    assert bulkhead.taken == 0
