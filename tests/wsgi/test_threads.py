"""The worker's threads: as many as are needed at once, and few once they are not."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from service.web.worker import MOST_WAITING
from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until

AT_ONCE = 30


@pytest.fixture
def house(scratch: Path, redis_server: RedisServer, model: Model) -> Iterator[Slipway]:
    settings = {"WEB_CONCURRENCY": "1", "THREADS": "40", "GRACEFUL_TIMEOUT": "30"}
    with slipway_server(scratch / "threads", redis_server.url, model.url, **settings) as server:
        yield server
    model.control()


def threads(server: Slipway) -> int:
    [worker] = server.workers()
    return len(list(Path(f"/proc/{worker}/task").iterdir()))


def test_there_are_as_many_as_are_needed_and_few_afterwards(house: Slipway, model: Model) -> None:
    client = house.client()
    before = threads(house)
    model.control(first_token_ms=1_500)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        answers = [
            pool.submit(client.post, "/v1/agents/assistant/invoke", json={"input": f"Question {number}"})
            for number in range(AT_ONCE)
        ]
        wait_until(lambda: threads(house) >= before + AT_ONCE, "a thread for each")
        assert {answer.result().status_code for answer in answers} == {200}
    wait_until(lambda: threads(house) <= before + MOST_WAITING, "the end of those not needed")
    assert client.get("/v1/agents").status_code == 200


def test_a_thread_that_begins_as_the_worker_stops_is_not_waited_for(house: Slipway) -> None:
    """It finds its listener closed. Begun or not when SIGTERM comes, the worker ends without its grace running out."""
    taken = [
        socket.create_connection(("127.0.0.1", house.port)) for _ in range(8)
    ]  # each begins another thread
    house.child.terminate()
    for sock in taken:
        sock.close()
    house.child.wait(20)  # the grace is 30
    assert "leader_failed" not in house.log.read_text()
