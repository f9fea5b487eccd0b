"""Bytes in flight: how much large content one process holds, of one user and in all."""

from __future__ import annotations

import threading

import pytest

from service.errors import Overloaded
from service.runs.bytes_in_flight import BytesInFlight


def test_one_user_has_half_of_the_room() -> None:
    room = BytesInFlight(100)
    room.take("usr_ada", 30)
    with pytest.raises(Overloaded) as full:
        room.take("usr_ada", 21)
    assert full.value.retry_after == 2
    room.take("usr_ada", 20)
    room.take("usr_bob", 50)
    assert room.taken == 100
    with pytest.raises(Overloaded):
        room.take("usr_eve", 1)


def test_room_that_was_given_back_is_there_once() -> None:
    room = BytesInFlight(100)
    held = room.take("usr_ada", 50)
    with held:
        pass
    held.give()
    assert room.taken == 0
    room.take("usr_ada", 50)
    with pytest.raises(Overloaded):
        room.take("usr_ada", 1)


def test_content_larger_than_all_passes_alone() -> None:
    room = BytesInFlight(10)
    with room.take("usr_ada", 11), pytest.raises(Overloaded):
        room.take("usr_bob", 1)
    room.take("usr_bob", 1)


def test_who_waits_gets_the_room_that_another_gives_back() -> None:
    room = BytesInFlight(10)
    held = room.take("usr_ada", 10)
    timer = threading.Timer(0.05, held.give)
    timer.start()
    with room.take("usr_bob", 5, wait=10):
        assert room.taken == 5
    timer.join()
