"""Cost of a cache hit: round trips to Redis, statements in the database."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Any

import httpx2
import pytest
import redis
import sqlalchemy

from service.wiring import Services
from tests.conftest import Model, RedisServer, Slipway
from tests.web.cache_house import House, house, standing, text

__all__ = ["house", "standing", "text"]


@contextmanager
def commands_of(server: RedisServer) -> Iterator[Callable[[], list[str]]]:
    """Every command that clients send to Redis meanwhile; what scripts do inside it is no round trip."""
    with closing(redis.Redis.from_url(server.url)) as client, client.monitor() as monitor:  # type: ignore[no-untyped-call]
        seen: list[str] = []
        ended = threading.Event()

        def listen() -> None:
            for command in monitor.listen():
                if command["command"].startswith("PING end"):
                    ended.set()
                    return
                if command["client_type"] != "lua":
                    seen.append(command["command"])

        thread = threading.Thread(target=listen)
        thread.start()

        def so_far() -> list[str]:
            with closing(redis.Redis.from_url(server.url)) as other:
                other.execute_command("PING", "end")  # type: ignore[no-untyped-call]
            assert ended.wait(30)
            thread.join()
            return [line for line in seen if not line.startswith(("CLIENT", "PING", "HELLO", "INFO"))]

        yield so_far


@contextmanager
def statements_of(wired: Services) -> Iterator[list[str]]:
    """Every statement this thread sends to the database meanwhile."""
    seen: list[str] = []
    me = threading.get_ident()

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if threading.get_ident() == me:
            seen.append(statement)

    sqlalchemy.event.listen(wired.infra.db.engine, "before_cursor_execute", note)
    yield seen
    sqlalchemy.event.remove(wired.infra.db.engine, "before_cursor_execute", note)


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_a_hit_is_one_round_trip_and_no_sql(
    house: House, redis_server: RedisServer, text: str, door: str
) -> None:
    house.ask(text)
    trips = []
    for _ in range(5):  # now and then what is revoked is loaded again, in a thread beside the request
        house.ask(text, door)
        with commands_of(redis_server) as commands, statements_of(house.wired) as statements:
            answer = house.ask(text, door)
            trips.append(commands())
        assert answer.headers["X-Cache"] == "hit"
        assert statements == []
    fewest = min(trips, key=len)
    assert len(fewest) == 1, fewest


def test_a_hit_needs_no_database(house: House, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a real database stopped: `tests/chaos/test_parts_down.py`."""
    house.ask(text)

    def away(*_: object, **__: object) -> None:
        raise AssertionError("the database was asked")

    for name in ("query", "transact"):
        monkeypatch.setattr(house.wired.infra.db, name, away)
    for door in ("invoke", "stream"):
        assert house.ask(text, door).headers["X-Cache"] == "hit"


def test_over_gunicorn(client: httpx2.Client, slipway: Slipway, model: Model, text: str) -> None:
    """Over real workers: one call, and everybody's answer."""
    model.control(first_token_ms=800)
    with ThreadPoolExecutor(6) as pool:
        post = partial(client.post, "/v1/agents/assistant/invoke", json={"input": text})
        answers = list(pool.map(lambda _: post(), range(6)))
    assert [answer.status_code for answer in answers] == [200] * 6
    assert Counter(answer.headers["X-Cache"] for answer in answers)["miss"] == 1
    assert model.stats()["calls"] == 1
    metrics = client.get("/metrics").text
    assert 'slipway_cache_total{agent="assistant",result="coalesced"}' in metrics
    assert json.loads(answers[0].text)["output"] == json.loads(answers[-1].text)["output"]
