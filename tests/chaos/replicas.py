"""Replicas of one process each over one database and Redis, and people who are signed in to all."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt

from tests.conftest import Model, RedisServer, Slipway, slipway_server

ME = "/v1/auth/me"


@contextmanager
def replicas(
    count: int, folder: Path, database_url: str, redis: RedisServer, model: Model
) -> Iterator[Sequence[Slipway]]:
    settings = {"DATABASE_URL": database_url, "WEB_CONCURRENCY": "1", "THREADS": "16", "LIMIT_RUNS": "none"}
    with ExitStack() as stack:
        yield [
            stack.enter_context(slipway_server(folder / str(number), redis.url, model.url, **settings))
            for number in range(count)
        ]


@contextmanager
def frozen(server: Slipway) -> Iterator[None]:
    """Freeze a replica during the block: its clients wait."""
    pids = [server.child.pid, *server.workers()]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


class Person:
    """Log-in with its newest token pair, which any replica takes."""

    def __init__(self, servers: Sequence[Slipway]) -> None:
        self.clients = [server.visitor() for server in servers]
        answer = self.call("POST", "/v1/auth/login", "", {"username": "demo", "password": "demo-password"})
        assert answer.status_code == 200, answer.text
        self.take(answer)

    def take(self, answer: httpx2.Response) -> None:
        self.access, self.refresh = answer.json()["access_token"], answer.json()["refresh_token"]

    @property
    def kid(self) -> str:
        return str(jwt.get_unverified_header(self.access)["kid"])

    def call(self, method: str, path: str, token: str, body: Any = None, at: int | None = None) -> Any:
        """Send a request to a replica, any one without `at`."""
        client = random.choice(self.clients) if at is None else self.clients[at]
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return client.request(method, path, headers=headers, json=body)

    def statuses(self) -> set[int]:
        """Return the statuses of the access token at all replicas."""
        return {self.call("GET", ME, self.access, at=at).status_code for at in range(len(self.clients))}

    def close(self) -> None:
        for client in self.clients:
            client.close()
