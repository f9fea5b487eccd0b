"""Failover under ten requests a second: requests wait, or get 503; no run is lost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.chaos.streams import listening
from tests.conftest import Model, RedisServer, wait_until
from tests.grown.databases import postgres_in, proxy
from tests.grown.traffic import (
    asked_all_the_while,
    heard_whole,
    names_of,
    refused,
    served,
    states,
    told,
    whole,
)

pytestmark = [pytest.mark.grown, pytest.mark.timeout(300)]
BEGUN_BEFORE = "SELECT count(*) FROM pg_stat_activity WHERE xact_start < pg_conf_load_time()"


@pytest.fixture
def pair(scratch: Path) -> Iterator[tuple[Postgres, Postgres]]:
    """Start a primary with a synchronous standby."""
    with postgres_in(scratch) as primary, postgres_in(scratch, primary) as standby:
        primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.sql("SELECT pg_reload_conf()")
        state = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
        wait_until(lambda: primary.sql(state) == 1, "the standby")
        yield primary, standby


def test_read_only_for_three_seconds_fails_no_request(
    scratch: Path, redis_server: RedisServer, model: Model
) -> None:
    with (
        postgres_in(scratch) as postgres,
        served(scratch, redis_server, model, postgres.url) as server,
        asked_all_the_while(server) as answers,
    ):
        time.sleep(2)
        with postgres.read_only():
            time.sleep(3)
        time.sleep(2)
    assert told(answers) == []


def test_read_only_for_longer_is_503_and_loses_nothing(
    scratch: Path, redis_server: RedisServer, model: Model
) -> None:
    """Start another replica meanwhile: it waits too."""

    def are(status: int) -> bool:
        return {visitor.get("/ready").status_code for visitor in (one, other)} == {status}

    with (
        postgres_in(scratch) as postgres,
        served(scratch, redis_server, model, postgres.url) as server,
        server.visitor() as one,
    ):
        with listening(server, 5) as listeners, asked_all_the_while(server) as answers:
            with postgres.read_only(), ExitStack() as stack:
                wait_until(lambda: one.get("/ready").status_code == 503, "not ready")
                late = served(scratch, redis_server, model, postgres.url, migrated=False)
                other = stack.enter_context(stack.enter_context(late).visitor())
                time.sleep(8)
                assert are(503)
                postgres.set_read_only(False)
                wait_until(lambda: are(200), "both ready")
            time.sleep(2)
        assert told(answers, lambda answer: whole(answer) or refused(answer)) == []
        assert any(map(refused, answers)) and all(map(whole, answers[-10:]))
        assert [names_of(each) for each in listeners if not heard_whole(each)] == []
        assert states(server) == {"succeeded": sum(map(whole, answers)) + 5, "failed": 0, "cancelled": 0}
        assert "Traceback" not in server.log.read_text()


def test_standby_is_promoted_behind_haproxy(
    scratch: Path, redis_server: RedisServer, model: Model, pair: tuple[Postgres, Postgres]
) -> None:
    primary, standby = pair
    with proxy(scratch, primary, standby) as port:
        url = primary.url.replace(str(primary.port), str(port))
        with served(scratch, redis_server, model, url) as server:
            with listening(server, 5) as listeners, asked_all_the_while(server) as answers:
                time.sleep(1)
                primary.kill()
                time.sleep(1)
                standby.promote()
                time.sleep(6)
            assert told(answers) == []
            assert [names_of(each) for each in listeners if not heard_whole(each)] == []
            assert states(server) == {"succeeded": len(answers) + 5, "failed": 0, "cancelled": 0}


def test_old_primary_that_still_answers_is_left_for_the_new_one(
    scratch: Path, redis_server: RedisServer, model: Model, pair: tuple[Postgres, Postgres]
) -> None:
    """Keep connections to the old primary open, both hosts in the URL: only refusals reveal its new state."""
    primary, standby = pair
    places = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
    url = primary.url.replace(f"127.0.0.1:{primary.port}", places)
    with served(scratch, redis_server, model, url) as server:
        with asked_all_the_while(server) as answers:
            time.sleep(2)
            primary.set_read_only(True)
            wait_until(lambda: primary.sql(BEGUN_BEFORE) == 0, "the end of transactions that may still write")
            standby.promote()
            time.sleep(5)
        assert told(answers) == []
        assert states(server) == {"succeeded": len(answers), "failed": 0, "cancelled": 0}
        kept = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        wait_until(lambda: primary.sql(kept) == 0, "the end of all connections to the old primary")
