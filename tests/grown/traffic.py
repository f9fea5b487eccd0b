"""Continuous client load during faults, and checks of the answers."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos.streams import LAST, Listener, text_of
from tests.conftest import Model, RedisServer, Slipway, slipway_server, wait_until

# Leases as in production: those of the tests (2 s) end while a busy machine catches up.
SETTINGS = {
    "WEB_CONCURRENCY": "2",
    "THREADS": "256",
    "LIMIT_RUNS": "none",
    "LEASE_SECONDS": "10",
    "RUN_TIMEOUT": "120",
}


@contextmanager
def served(
    scratch: Path, redis_server: RedisServer, model: Model, url: str, **more: Any
) -> Iterator[Slipway]:
    model.reset()
    model.control(first_token_ms=200, token_ms=40)
    home = Path(tempfile.mkdtemp(prefix="failover", dir=scratch))
    with slipway_server(
        home, redis_server.url, model.url, DATABASE_URL=url, **{**SETTINGS, **more}
    ) as server:
        wait_until(lambda: len(server.workers()) == 2, "both workers")
        yield server
    model.reset()


def states(server: Slipway) -> dict[str, int]:
    """Count runs by state, once none is active."""
    unfinished = ("queued", "running")

    def count(client: httpx2.Client, status: str) -> int:
        cursor, found = None, 0
        while True:
            query: dict[str, Any] = {"status": status, "limit": 100} | ({"cursor": cursor} if cursor else {})
            page = client.get("/v1/runs", params=query).raise_for_status().json()
            found, cursor = found + len(page["data"]), page.get("next_cursor")
            if not cursor:
                return found

    with server.client() as client:
        wait_until(lambda: sum(count(client, status) for status in unfinished) == 0, "the last end")
        return {status: count(client, status) for status in ("succeeded", "failed", "cancelled")}


def names_of(listener: Listener) -> list[str]:
    return [name for _, name, _ in listener.told]


def heard_whole(listener: Listener) -> bool:
    """Check for one last event of a succeeded run, and its whole text."""
    last = [name for name in names_of(listener) if name in LAST]
    whole_text = text_of(listener.told) == listener.told[-1][2].get("output")
    return last == names_of(listener)[-1:] == ["run.completed"] and whole_text


@contextmanager
def asked_all_the_while(server: Slipway) -> Iterator[list[httpx2.Response]]:
    """Ask ten times a second, invoke and stream in turn, for the length of the block; then every answer is there."""
    over = threading.Event()
    asked: list[Future[httpx2.Response]] = []
    answers: list[httpx2.Response] = []
    with server.client() as client, ThreadPoolExecutor(128) as pool:
        client.timeout = httpx2.Timeout(120)

        def ask(number: int) -> httpx2.Response:
            door = "stream" if number % 2 else "invoke"
            question = {"input": f"Question {number} {time.time_ns()}", "cache": "bypass"}
            return client.post(f"/v1/agents/assistant/{door}", json=question)

        def go_on() -> None:
            while not over.wait(0.1):
                asked.append(pool.submit(ask, len(asked)))

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            yield answers
        finally:
            over.set()
            thread.join()
            answers += [future.result() for future in asked]


def whole(answer: httpx2.Response) -> bool:
    if answer.headers["Content-Type"].startswith("text/event-stream"):
        return "event: run.completed" in answer.text
    return answer.status_code == 200 and answer.json()["status"] == "succeeded"


def refused(answer: httpx2.Response) -> bool:
    """Check that the only failure was a retryable answer."""
    return (
        answer.status_code == 503
        and answer.json()["code"] == "database_unavailable"
        and int(answer.headers["Retry-After"]) >= 1
    )


def told(answers: list[httpx2.Response], right: Callable[[httpx2.Response], bool] = whole) -> list[str]:
    """Return the invalid answers."""
    return [f"{answer.status_code} {answer.text[-600:]}" for answer in answers if not right(answer)]
