"""Followers of a run with missing events, over a real database and a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.infra.redis import RedisStore
from service.infra.redis_client import connect
from service.runs.events.event_stream import EventStreamReader, encode, stream_key
from service.runs.events.follower import Follower
from service.store import runs, users
from service.store import steps as step_rows
from service.store.database import Database
from service.types import Event, RunEvent, RunStatus, now_ms
from tests.conftest import RedisServer
from tests.runs.house import ADA, ASSISTANT, asked, run_of
from tests.tables import create_tables


class Followed:
    """A streamed run of Ada's, whose events a test puts where it wants them."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.db = Database(f"sqlite:///{folder}/test.db")
        create_tables(self.db.engine)
        self.redis_store = RedisStore(redis_url, max_connections=4)
        self.blocking = connect(redis_url, max_connections=2)
        self.live = EventStreamReader(self.redis_store, self.blocking)
        self.run = run_of(asked("Hello", ASSISTANT), door="stream")
        self.run.attempt = 1
        user = {"id": ADA.user_id, "username": "ada", "password_hash": "", "role": "user", "disabled": False}
        self.db.transact(lambda tx: users.insert(tx, {**user, "created_at": 0}))
        self.db.transact(lambda tx: runs.insert(tx, self.run, worker_id="wrk"))

    def tell(self, *numbers: int, attempt: int = 1) -> None:
        """To the live stream alone."""
        self.told_by(attempt, *(delta(number) for number in numbers))

    def told_by(self, attempt: int, *events: RunEvent) -> None:
        entry_id = f"{attempt}-{events[-1].seq}"
        self.redis_store.call(
            lambda client: client.xadd(stream_key(self.run.id), {"e": encode(events)}, id=entry_id),
            default=None,
        )

    def keep(self, *numbers: int) -> None:
        """In the database alone."""
        events = [[number, Event.TEXT_DELTA, {"text": str(number)}] for number in numbers]
        step = {
            "run_id": self.run.id,
            "n": numbers[0],
            "kind": "model",
            "name": "x",
            "attempt": 1,
            "reply": {},
        }
        more = {"cost_nano": 0, "started_at": 0, "finished_at": 0, "events": events}
        ends = {"first_seq": numbers[0], "last_seq": numbers[-1]}
        self.db.transact(lambda tx: step_rows.insert(tx, {**step, **more, **ends}, self.run.user_id))

    def end(self, seq: int) -> None:
        self.run.status, self.run.finished_at, self.run.last_seq = RunStatus.SUCCEEDED, now_ms(), seq
        self.run.result = {"output": "done"}
        assert self.db.transact(lambda tx: runs.finish(tx, self.run, 1))

    def reads(self, until: int, after: int = 0) -> list[tuple[Any, ...]]:
        """(number, name) of every event until number `until`, with what a `run.resumed` says is kept."""
        heard: list[RunEvent] = []
        for batch in Follower(self.db, self.live, self.run.id, after).events(0.1):
            heard += batch
            if heard and heard[-1].seq >= until:
                break
        return [in_short(event) for event in heard]

    def heard(self, after: int = 0) -> list[tuple[Any, ...]]:
        """(number, name) of every event until the last; a gap with what it says is missing."""
        follower = Follower(self.db, self.live, self.run.id, after)
        told = [event for batch in follower.events(0.1) for event in batch]
        return [
            (event.seq, event.name, event.data["from_seq"], event.data["to_seq"])
            if event.name is Event.GAP
            else (event.seq, event.name)
            for event in told
        ]


def delta(number: int) -> RunEvent:
    return RunEvent(Event.TEXT_DELTA, {"text": str(number)}, number)


def resumed(number: int, from_seq: int) -> RunEvent:
    return RunEvent(Event.RUN_RESUMED, {"from_seq": from_seq}, number)


def in_short(event: RunEvent) -> tuple[Any, ...]:
    more = (event.data["from_seq"],) if event.name is Event.RUN_RESUMED else ()
    return (event.seq, event.name, *more)


def texts(*numbers: int) -> list[tuple[Any, ...]]:
    return [(number, Event.TEXT_DELTA) for number in numbers]


@pytest.fixture
def followed(tmp_path: Path, redis_server: RedisServer) -> Iterator[Followed]:
    house = Followed(tmp_path, redis_server.url)
    yield house
    house.blocking.close()
    house.redis_store.close()
    house.db.close()


def test_gap_event_stands_in_for_lost_events(followed: Followed) -> None:
    followed.keep(1, 2)
    followed.keep(7, 8)  # Redis was lost with what was told between, and so was the worker
    followed.end(9)
    gap = (6, Event.GAP, 3, 6)
    assert followed.heard() == [*texts(1, 2), gap, *texts(7, 8), (9, Event.RUN_COMPLETED)]
    assert followed.heard(after=4) == [(6, Event.GAP, 5, 6), *texts(7, 8), (9, Event.RUN_COMPLETED)]
    assert followed.heard(after=7) == [*texts(8), (9, Event.RUN_COMPLETED)]


def test_events_missing_in_redis_are_read_from_the_database(followed: Followed) -> None:
    followed.tell(5, 6)  # its beginning was trimmed, or Redis was wiped in between
    events = Follower(followed.db, followed.live, followed.run.id).events(0.1)
    followed.keep(1, 2, 3, 4)
    heard = []
    for batch in events:
        heard += [(event.seq, event.name) for event in batch]
        if heard and heard[-1][0] == 6:
            followed.end(7)
            break
    assert heard == texts(1, 2, 3, 4, 5, 6)


def test_a_hole_in_the_live_stream_is_said_too(followed: Followed) -> None:
    followed.keep(1)
    followed.tell(1, 2)
    followed.tell(5)
    events = Follower(followed.db, followed.live, followed.run.id).events(0.1)
    heard: list[tuple[int, Event]] = []
    while not heard or heard[-1][0] < 5:
        heard += [(event.seq, event.name) for event in next(events)]
    assert heard == [*texts(1, 2), (4, Event.GAP), *texts(5)]


def test_later_attempt_without_its_beginning_voids_unstored_events(followed: Followed) -> None:
    followed.keep(1, 2)
    followed.tell(3, 4)
    followed.tell(9, 10, attempt=2)
    void = [(7, Event.GAP), (8, Event.RUN_RESUMED, 2), *texts(9, 10)]
    assert followed.reads(10) == [*texts(1, 2, 3, 4), *void]
    assert followed.reads(10, after=4) == void
    assert followed.reads(10, after=7) == void[1:]  # the client left in between
    assert followed.reads(10, after=8) == texts(9, 10)
    short = [in_short(event) for event in Follower(followed.db, followed.live, followed.run.id, 4).so_far()]
    assert short == void


def test_later_attempt_with_its_own_void_gets_no_second(followed: Followed) -> None:
    followed.tell(1, 2)
    followed.told_by(2, RunEvent(Event.RUN_STARTED, {}, 101))
    followed.told_by(2, resumed(102, 0), delta(103))
    told = [(100, Event.GAP), (101, Event.RUN_STARTED), (102, Event.RUN_RESUMED, 0), *texts(103)]
    assert followed.reads(103) == [*texts(1, 2), *told]


def test_a_later_hole_of_the_same_attempt_voids_nothing(followed: Followed) -> None:
    followed.tell(1, 2)
    followed.told_by(2, resumed(3, 2), delta(4))
    followed.tell(7, attempt=2)
    told = [(3, Event.RUN_RESUMED, 2), *texts(4), (6, Event.GAP), *texts(7)]
    assert followed.reads(7) == [*texts(1, 2), *told]
    assert followed.reads(7, after=4) == told[2:]
