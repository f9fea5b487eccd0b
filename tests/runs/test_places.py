"""Places: how many requests of one process may run, wait or follow, of one user and in all."""

from __future__ import annotations

import pytest

from service.errors import Overloaded, RateLimited
from service.runs.places import Place, Places


def test_no_more_than_there_are() -> None:
    places = Places(total=3, each=3)
    taken = [places.take(f"usr_{number}") for number in range(3)]
    with pytest.raises(Overloaded) as full:
        places.take("usr_9")
    assert full.value.retry_after == 1
    taken.pop().give()
    places.take("usr_9")


def test_one_user_leaves_some_for_others() -> None:
    places = Places(total=10, each=4)
    for _ in range(4):
        places.take("usr_ada")
    with pytest.raises(RateLimited):
        places.take("usr_ada")
    places.take("usr_bob")


def test_readers_leave_half_for_runs() -> None:
    places = Places(total=6, each=6)
    for _ in range(3):
        places.take("usr_ada", reads=True)
    with pytest.raises(Overloaded):
        places.take("usr_bob", reads=True)
    for _ in range(3):
        places.take("usr_bob")
    assert places.taken == 6


def test_a_place_is_given_back_once() -> None:
    places = Places(total=2, each=2)
    with places.take("usr_ada") as first:
        second: Place = places.take("usr_ada", reads=True)
        second.give()
        second.give()
        assert places.taken == 1
    first.give()
    assert places.taken == 0
