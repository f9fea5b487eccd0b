"""Marks of stopped agents in Redis, as a stop and a release meet."""

from __future__ import annotations

from typing import Any

import pytest

from service.auth.revocation import Revocations
from service.infra.redis_trip import Trip
from service.store.database import Database
from service.wiring import Services
from tests.runs.test_stops import release, stop, wired

__all__ = ["wired"]


def test_stop_just_after_a_release_keeps_its_mark(wired: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    stop(wired)
    withdraw = Revocations.withdraw

    def after_another_stop(self: Revocations, *args: Any) -> None:
        stop(wired)
        withdraw(self, *args)

    monkeypatch.setattr(Revocations, "withdraw", after_another_stop)
    release(wired)
    assert wired.runs.stops.every() and marked(wired)


def test_look_up_that_finds_a_stop_over_keeps_the_mark_of_the_next(
    wired: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop(wired)
    monkeypatch.setattr(Revocations, "withdraw", lambda *_: None)  # as where Redis was away
    release(wired)
    monkeypatch.undo()
    query = Database.query

    def then_stop(self: Database, *args: Any, **options: Any) -> Any:
        monkeypatch.undo()
        found = query(self, *args, **options)
        stop(wired)
        return found

    monkeypatch.setattr(Database, "query", then_stop)
    trip = Trip(wired.infra.redis_store)
    trip.add(wired.runs.stops.call("probe"))
    trip.send()
    assert wired.runs.stops.every() and marked(wired)


def marked(wired: Services) -> bool:
    return wired.infra.redis_store.client.hget("slipway:distrusted", "agent:probe") is not None
