"""Redis, database and model stopped under requests: remaining functions, and answers of the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from tests.chaos.conftest import Postgres
from tests.chaos.houses import House
from tests.conftest import wait_until

ASKED = 50


def ask_while(house: House, happens: Callable[[], None]) -> list[httpx2.Response]:
    """50 clients ask at once, half of them streamed; `happens` comes in the middle."""
    house.model.control(first_token_ms=600, token_ms=5)
    with house.server.client() as client, ThreadPoolExecutor(ASKED) as pool:

        def ask(number: int) -> httpx2.Response:
            door = "stream" if number % 2 else "invoke"
            return client.post(
                f"/v1/agents/assistant/{door}",
                json={"input": f"Question {number}", "cache": "bypass"},
                headers={"Idempotency-Key": f"{house.name}-{happens.__name__}-{number}-{time.time_ns()}"},
            )

        answers = [pool.submit(ask, number) for number in range(ASKED)]
        wait_until(lambda: house.model.stats()["in_flight"] >= ASKED / 2, "half of them at the model")
        happens()
        return [answer.result() for answer in answers]


def whole(answer: httpx2.Response) -> bool:
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        return "event: run.completed" in answer.text
    return answer.status_code == 200 and answer.json()["status"] == "succeeded"


def test_redis_killed_during_requests(house: House) -> None:
    def redis_is_killed() -> None:
        house.redis.kill()

    try:
        answers = ask_while(house, redis_is_killed)
        assert [answer.text for answer in answers if not whole(answer)] == []
        with house.server.client() as client:  # signs in anew, without Redis
            answer = client.post("/v1/agents/assistant/invoke", json={"input": "Without Redis?"})
            assert (answer.status_code, answer.headers["X-Cache"]) == (200, "bypass")
            assert "RateLimit-Remaining" in answer.headers
            ready = client.get("/ready")
            assert (ready.status_code, ready.json()["redis"]["status"]) == (200, "degraded")
    finally:
        house.redis.start()
    with house.server.client() as client:
        wait_until(lambda: client.get("/ready").json()["redis"]["status"] == "ok", "Redis again")
        question = {"input": f"With Redis again {time.time_ns()}"}

        def hit() -> bool:
            return client.post("/v1/agents/assistant/invoke", json=question).headers["X-Cache"] == "hit"

        wait_until(hit, "the cache")


def test_database_restarted_during_requests(house: House, request: pytest.FixtureRequest) -> None:
    if house.name != "postgresql":
        pytest.skip("SQLite is a file: it cannot be restarted")
    postgres: Postgres = request.getfixturevalue("postgres")

    def postgres_restarts() -> None:
        postgres.stop("immediate")
        threading.Timer(1.0, postgres.start).start()

    answers = ask_while(house, postgres_restarts)
    assert [answer.text for answer in answers if not whole(answer)] == []


def test_database_stays_down(house: House, request: pytest.FixtureRequest) -> None:
    if house.name != "postgresql":
        pytest.skip("SQLite is a file: it cannot be stopped")
    postgres: Postgres = request.getfixturevalue("postgres")
    with house.server.client() as client:
        question = {"input": "Is this kept in the cache?"}
        assert client.post("/v1/agents/assistant/invoke", json=question).status_code == 200
        postgres.stop("immediate")
        try:
            hit = client.post("/v1/agents/assistant/invoke", json=question)
            assert (hit.status_code, hit.headers["X-Cache"]) == (200, "hit")
            assert client.get("/health").status_code == 200
            asked = client.post("/v1/agents/assistant/invoke", json={"input": "Something new"})
            assert (asked.status_code, asked.json()["code"]) == (503, "database_unavailable")
            assert int(asked.headers["Retry-After"]) >= 1
            assert client.get("/ready").status_code == 503
        finally:
            postgres.start()
        wait_until(lambda: client.get("/ready").status_code == 200, "the database again")
        assert client.post("/v1/agents/assistant/invoke", json={"input": "Something new"}).status_code == 200


def test_model_stays_down(house: House) -> None:
    question = {"input": "Is this kept while the model is there?"}
    with house.server.client() as client:
        assert client.post("/v1/agents/assistant/invoke", json=question).status_code == 200
        house.model.control(fault="503")
        codes = set()
        for number in range(24):  # the breaker of each model opens, in both workers
            answer = client.post(
                "/v1/agents/assistant/invoke",
                json={"input": f"Gone {number}", "cache": "bypass"},
                headers={"Connection": "close"},  # so that each worker gets some
            )
            codes.add((answer.status_code, answer.json()["code"]))
            assert int(answer.headers["Retry-After"]) >= 1
        assert codes == {(503, "model_unavailable")}
        calls = house.model.stats()["calls"]
        client.post("/v1/agents/assistant/invoke", json={"input": "Not even asked", "cache": "bypass"})
        assert house.model.stats()["calls"] - calls <= 3  # at most one probe of each model
        hit = client.post("/v1/agents/assistant/invoke", json=question)
        assert (hit.status_code, hit.headers["X-Cache"]) == (200, "hit")
        house.model.control()

        def back() -> bool:
            fresh = {"input": f"Back {time.time_ns()}", "cache": "bypass"}
            return client.post("/v1/agents/assistant/invoke", json=fresh).status_code == 200

        wait_until(back, "the model again")
        # The other worker's breakers, open for half a second, must let the next test through.
        time.sleep(1)
