"""Single flight over two replicas: a thousand equal requests, one model call; and the owner killed."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis
import sqlalchemy

from config.derived import database_url
from service.ids import new_id
from tests.chaos.conftest import Postgres
from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until
from tests.web.test_doors import events_of

MANY = 1_000
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "LIMIT_RUNS": "100000/minute",
    "LIMIT_CONCURRENT_RUNS": "1000",  # one user asks
    "LEASE_SECONDS": "2",
    "SWEEP_SECONDS": "0.5",
}


@dataclass
class Pair:
    """Pair of replicas over one database and one Redis, with a shared token."""

    replicas: tuple[Slipway, Slipway]
    model: Model
    token: str

    def ask_all(self, text: str, count: int, doors: tuple[str, ...] = ("invoke",)) -> list[httpx2.Response]:
        """Send all requests at once, half to each replica; a 503 is retried after its delay."""
        return asyncio.run(self._ask_all(text, count, doors))

    async def _ask_all(self, text: str, count: int, doors: tuple[str, ...]) -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        headers = {"Authorization": f"Bearer {self.token}"}
        async with httpx2.AsyncClient(timeout=90, limits=limits, headers=headers, trust_env=False) as client:
            # The tier is named, so that no model is asked which one it should be.
            body = {"input": text, "tier": "simple"}

            async def ask(number: int) -> httpx2.Response:
                url = f"{self.replicas[number % 2].url}/v1/agents/assistant/{doors[number // 2 % len(doors)]}"
                end = time.monotonic() + 90
                while True:
                    try:
                        answer = await client.post(url, json=body)
                    except httpx2.TransportError as error:  # of a worker that is killed
                        answer = httpx2.Response(503, headers={"Retry-After": "1"}, text=repr(error))
                    if answer.status_code != 503 or time.monotonic() > end:
                        return answer
                    await asyncio.sleep(float(answer.headers["Retry-After"]))

            return list(await asyncio.gather(*map(ask, range(count))))


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def standing(
    request: pytest.FixtureRequest, scratch: Path, own_redis: RedisServer, model: Model
) -> Iterator[Pair]:
    folder = scratch / f"pair-{request.param}"
    url = f"sqlite:///{folder}/one.db"
    if request.param == "postgresql":
        postgres: Postgres = request.getfixturevalue("postgres")
        url = postgres.create("single_flight")
    folder.mkdir()
    settings = {**SETTINGS, "DATABASE_URL": url, "THREADS": "320" if request.param == "sqlite" else "64"}
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(slipway_server(folder / name, own_redis.url, model.url, **settings))
            for name in ("first", "second")
        )
        with first.client() as client:
            token = client.headers["Authorization"].removeprefix("Bearer ")
        yield Pair((first, second), model, token)


@pytest.fixture
def pair(standing: Pair) -> Iterator[Pair]:
    standing.model.reset()
    yield standing
    standing.model.reset()


def outcome(answer: httpx2.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        return events_of(answer.text)[-1][2]
    result: dict[str, Any] = answer.json()
    return result


def test_thousand_equal_requests_at_two_replicas_make_one_model_call(pair: Pair) -> None:
    pair.model.control(first_token_ms=3_000)
    answers = pair.ask_all(f"A thousand times {new_id('x')}?", MANY)
    assert pair.model.stats()["calls"] == 1
    assert len({outcome(answer)["output"] for answer in answers}) == 1
    caches = Counter(answer.headers["X-Cache"] for answer in answers)
    assert caches["miss"] == 1 and set(caches) <= {"miss", "coalesced", "hit"}
    free = [answer.headers["X-Cost-USD"] for answer in answers if answer.headers["X-Cache"] != "miss"]
    assert set(free) == {"0.000000"}


def test_single_flight_spans_invoke_and_stream(pair: Pair) -> None:
    pair.model.control(first_token_ms=1_500, token_ms=20)
    answers = pair.ask_all(f"At both doors {new_id('x')}?", 100, ("stream", "invoke"))
    assert pair.model.stats()["calls"] == 1
    assert len({outcome(answer)["output"] for answer in answers}) == 1


@pytest.mark.parametrize("door", ["invoke", "stream"])
def test_killed_owner_is_replaced(pair: Pair, door: str) -> None:
    """Allow one more call for the successor, and one for the dead owner's run, which another worker resumes."""
    pair.model.control(first_token_ms=2_500)
    text = f"Who is killed {door} {new_id('x')}?"
    before = set(pair.replicas[0].workers()) | set(pair.replicas[1].workers())

    async def scene() -> list[httpx2.Response]:
        asking = asyncio.create_task(pair._ask_all(text, 60, (door, "invoke")))
        await asyncio.to_thread(
            wait_until, lambda: pair.model.stats()["in_flight"] == 1, "the leader at the model"
        )
        await asyncio.sleep(0.5)
        os.kill(await asyncio.to_thread(_leading, pair), signal.SIGKILL)
        return await asking

    answers = asyncio.run(scene())
    for answer in answers:
        if (
            answer.headers["Content-Type"].startswith("text/event-stream")
            and "run.completed" not in answer.text
        ):
            continue  # it was at the killed worker, and would come back for the rest
        assert outcome(answer)["status"] == "succeeded"
    assert 2 <= pair.model.stats()["calls"] <= 3
    wait_until(
        lambda: len(set(pair.replicas[0].workers()) | set(pair.replicas[1].workers())) == len(before),
        "workers",
    )


def test_owners_killed_in_a_row_have_one_successor_each(pair: Pair) -> None:
    """Check that waiters never all call the model, however many owners die."""
    pair.model.control(first_token_ms=4_000)
    text = f"Who is left {new_id('x')}?"
    ended: set[str] = set()  # runs that led; another worker takes them up, and leads nobody

    def kill_leader() -> bool:
        leading = {run_id: pid for run_id, pid in _flight_leaders(pair).items() if run_id not in ended}
        ended.update(leading)
        for pid in leading.values():
            os.kill(pid, signal.SIGKILL)
        return bool(leading)

    async def scene() -> list[httpx2.Response]:
        asking = asyncio.create_task(pair._ask_all(text, 60, ("invoke",)))
        for _ in range(3):
            await asyncio.to_thread(wait_until, kill_leader, "a leader at the model")
        return await asking

    answers = asyncio.run(scene())
    assert {outcome(answer)["status"] for answer in answers} == {"succeeded"}
    # Of each that is killed its heir's, and its own run's, which another worker takes up.
    assert pair.model.stats()["calls"] <= 8


def _flight_leaders(pair: Pair) -> dict[str, int]:
    """Return the owners' runs, and the worker processes that execute them."""
    with redis.Redis(unix_socket_path=pair.replicas[0].env["REDIS_URL"].removeprefix("unix://")) as client:
        led = [client.hget(key, "leader") for key in client.scan_iter("slipway:flight:*")]
    runs = [leader.decode().split()[0] for leader in led if leader]
    return {run_id: pid for run_id, pid in _running(pair) if run_id in runs}


def _leading(pair: Pair) -> int:
    """Return the worker process of the only running run."""
    ((_, pid),) = _running(pair)
    return pid


def _running(pair: Pair) -> list[tuple[str, int]]:
    """Return running runs with their worker processes."""
    url = database_url(pair.replicas[0].env["DATABASE_URL"], Path())
    running = sqlalchemy.text(
        "SELECT runs.id, pid FROM workers JOIN runs ON worker_id = workers.id WHERE status = 'running'"
    )
    engine = sqlalchemy.create_engine(url)
    with engine.connect() as connection:
        found = connection.execute(running).all()
    engine.dispose()
    return [(str(run_id), int(pid)) for run_id, pid in found]


def test_only_the_owner_is_charged(pair: Pair) -> None:
    """Check the ledger: one run is charged, waiters have none."""
    text = f"Who pays {new_id('x')}?"
    pair.model.control(first_token_ms=800)
    answers = pair.ask_all(text, 40)
    assert len({outcome(answer)["output"] for answer in answers}) == 1
    paid = [answer.json()["run_id"] for answer in answers if answer.headers["X-Cache"] == "miss"]
    assert len(paid) == 1
    with pair.replicas[1].client() as client:
        assert client.get(f"/v1/runs/{paid[0]}").json()["usage"]["cost_usd"] > "0.000000"
        waited = next(a.json()["run_id"] for a in answers if a.headers["X-Cache"] == "coalesced")
        assert client.get(f"/v1/runs/{waited}").status_code == 404
