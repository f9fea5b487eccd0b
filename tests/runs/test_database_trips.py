"""Round trips to PostgreSQL of one run, counted at the driver: an exchange of statements is one, as is a cursor's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from service.store.postgres_connection import Answer, Call
from service.types import NANO, Event, now_ms
from service.wiring import Services
from tests.conftest import RedisServer
from tests.llm.wire_server import WireServer
from tests.runs import inside, scripted
from tests.runs.test_kept_output import and_then_silence
from tests.runs.turns import begin, history_of, turn

pytestmark = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
Trips = list[list[str]]  # the first words of the statements of each


@pytest.fixture(params=["plain", "sealed"])
def kept_in_each(
    request: pytest.FixtureRequest, tmp_path: Path, redis_server: RedisServer, upstream: WireServer, url: str
) -> Iterator[Services]:
    """Services over PostgreSQL, without a keyring and with one: a key that is known costs no trip."""
    more = {"keyring_url": f"sqlite:///{tmp_path}/keys.db"} if request.param == "sealed" else {}
    with scripted.services(tmp_path, redis_server.url, upstream, database_url=url, **more) as services:
        yield services


@pytest.fixture
def trips(kept_in_each: Services) -> Trips:
    """Those made since the list was last cleared; caps and prices are known by then."""
    made: Trips = []

    class Counted(psycopg.Cursor[Any]):
        def execute(self, query: Any, *args: Any, **options: Any) -> Any:
            made.append([str(query).split()[0]])
            return super().execute(query, *args, **options)

    def count(connection: Any, _: Any) -> None:
        exchange = connection.exchange

        def counted(calls: Sequence[Call]) -> list[Answer]:
            made.append([sql.split()[0] for sql, _ in calls])
            found: list[Answer] = exchange(calls)
            return found

        connection.cursor_factory, connection.exchange = Counted, counted

    engine = kept_in_each.infra.db.engine
    sa.event.listen(engine, "connect", count)
    engine.dispose()
    inside.ask(kept_in_each)
    return made


def of_run(wired: Services, trips: Trips) -> int:
    trips.clear()
    inside.ask(wired)
    return len(trips)


def test_a_run_is_a_trip_for_each_end(kept_in_each: Services, trips: Trips) -> None:
    assert of_run(kept_in_each, trips) == 2, trips


def test_a_run_for_an_end_user_with_a_cap_is_two_trips_too(kept_in_each: Services, trips: Trips) -> None:
    caller = inside.ADA._replace(key_id="key_1")
    kept_in_each.usage.budgets.put("end_user:key_1/*", "day", NANO)
    kept_in_each.usage.budgets.put("end_user:key_1/zoë / 7", "month", NANO, until=now_ms() + 60_000)

    def ask() -> None:
        asked = inside.request("What time is it?", end_user="zoë / 7")
        kept_in_each.runs.start.invoke(caller, asked, None, "req")

    ask()
    trips.clear()
    ask()
    assert len(trips) == 2, trips


def test_a_turn_of_a_session_is_two_trips_more(
    kept_in_each: Services, upstream: WireServer, trips: Trips
) -> None:
    """It claims its session before it reads the history; the hold, which depends on that, is a trip of its own."""
    without, session_id = of_run(kept_in_each, trips), begin(kept_in_each)
    turn(kept_in_each, session_id, "And who are you?")
    trips.clear()
    turn(kept_in_each, session_id, "What else?")
    assert len(trips) == without + 2, trips
    told = [("user", "And who are you?"), ("assistant", "Good day."), ("user", "What else?")]
    assert history_of(upstream.requests[-1]) == told


def test_a_stream_is_one_trip_before_its_first_text(
    kept_in_each: Services, upstream: WireServer, trips: Trips
) -> None:
    upstream.script.append(and_then_silence("Half"))
    trips.clear()
    started, batches = kept_in_each.runs.start.stream(inside.ADA, inside.request("Why?"), None, "req")
    for events in batches:
        if any(event.name is Event.TEXT_DELTA for event in events):
            break
    assert len(trips) == 1, trips
    kept_in_each.runs.cancellation.cancel(started.run)
    batches.close()
    assert started.place is not None
    started.place.give()
