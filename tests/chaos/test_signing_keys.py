"""Signing keys rotated under load on two replicas: nobody is signed out. Then one is stolen."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx2
import pytest

from tests.chaos.conftest import Postgres
from tests.chaos.replicas import ME, Person, replicas
from tests.conftest import PYTHON, ROOT, Model, RedisServer, Slipway, wait_until

PEOPLE = 4


@pytest.fixture
def servers(
    scratch: Path, postgres: Postgres, own_redis: RedisServer, model: Model
) -> Iterator[tuple[Slipway, Slipway]]:
    with replicas(scratch / "rotation", postgres, own_redis, model) as both:
        yield both


class Worker(threading.Thread):
    """Asks any replica, runs an agent, and renews its tokens, again and again."""

    def __init__(self, person: Person, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.person, self.stop = person, stop
        self.kids: set[str] = set()
        self.wrong: list[str] = []

    def run(self) -> None:
        while not self.stop.is_set():
            self.kids.add(self.person.kid)
            for method, path, body in (
                ("GET", ME, None),
                ("POST", "/v1/agents/assistant/invoke", {"input": "Hello"}),
                ("POST", "/v1/auth/refresh", None),
            ):
                self.ask(method, path, body)

    def ask(self, method: str, path: str, body: object) -> None:
        renews = path.endswith("refresh")
        token = self.person.refresh if renews else self.person.access
        try:
            answer = self.person.call(method, path, token, body)
        except httpx2.HTTPError as error:
            self.wrong.append(repr(error))
            return
        if answer.status_code != 200:
            self.wrong.append(f"{path}: {answer.status_code} {answer.text}")
        elif renews:
            self.person.take(answer)


def rotate(server: Slipway, *options: str) -> str:
    """Run the command as an operator does; return the new key's id."""
    command = [PYTHON, "-m", "flask", "--app", "wsgi", "keys", "rotate", *options]
    env = {**os.environ, **server.env}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def test_rotation_under_load_signs_nobody_out(servers: tuple[Slipway, Slipway]) -> None:
    stop = threading.Event()
    people = [Person(servers) for _ in range(PEOPLE + 1)]
    early, *others = people
    workers = [Worker(person, stop) for person in others]
    for worker in workers:
        worker.start()
    kids = [early.kid]
    for server in servers:
        kids.append(rotate(server))
        wait_until(lambda: all(kids[-1] in worker.kids for worker in workers), "tokens of the new key", 120)
    stop.set()
    for worker in workers:
        worker.join(60)
    assert [wrong for worker in workers for wrong in worker.wrong] == []
    assert all(worker.kids == set(kids) for worker in workers)
    for server in servers:
        with closing(server.visitor()) as visitor:
            found = visitor.get("/.well-known/jwks.json").json()["keys"]
        assert [key["kid"] for key in found] == kids
    assert early.statuses() == {200}  # two keys later
    answer = early.call("POST", "/v1/auth/refresh", early.refresh)
    assert answer.status_code == 200
    early.take(answer)
    assert early.kid == kids[-1]

    stolen = rotate(servers[0], "--stolen")
    wait_until(lambda: early.statuses() == {401}, "the end of the stolen keys", 30)
    assert all(person.statuses() == {401} for person in people)
    assert {
        person.call("POST", "/v1/auth/refresh", person.refresh, at=at).status_code
        for person in people
        for at in (0, 1)
    } == {401}
    late = Person(servers)
    assert late.kid == stolen and late.statuses() == {200}
    for person in (*people, late):
        person.close()
