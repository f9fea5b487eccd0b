from __future__ import annotations

import threading

import pytest

from service.infra.places import Places


def test_places_are_taken_and_given_back() -> None:
    places = Places(2)
    assert places.acquire(0) and places.acquire(0) and not places.acquire(0)
    assert (places.used, places.size) == (2, 2)
    places.release()
    assert places.acquire(0) and places.used == 2


def test_who_waits_gets_the_place_that_is_given_back() -> None:
    places, got = Places(1), list[bool]()
    assert places.acquire(0)
    waiting = threading.Thread(target=lambda: got.append(places.acquire(20)))
    waiting.start()
    places.release()
    waiting.join(20)
    assert got == [True] and places.used == 1


def test_more_given_back_than_taken_is_an_error() -> None:
    with pytest.raises(ValueError, match="more places"):
        Places(1).release()
