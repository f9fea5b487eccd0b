"""Signing keys rotated under load on three replicas: nobody is signed out. Then one is stolen."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.chaos.replicas import ME, Person, frozen, replicas
from tests.conftest import PYTHON, ROOT, Model, RedisServer, Slipway, wait_until

PEOPLE, REPLICAS = 4, 3
SENT_AT_ONCE = 8  # requests that wait for a frozen replica


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def servers(
    request: pytest.FixtureRequest, scratch: Path, own_redis: RedisServer, model: Model
) -> Iterator[Sequence[Slipway]]:
    folder = scratch / f"rotation-{request.param}"
    url = f"sqlite:///{folder}/shared.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres").create("rotation")
    with replicas(REPLICAS, folder, url, own_redis, model) as all_of_them:
        yield all_of_them


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


@contextmanager
def working(servers: Sequence[Slipway]) -> Iterator[list[Worker]]:
    """Let people work during the block; none of their requests may fail."""
    stop = threading.Event()
    workers = [Worker(Person(servers), stop) for _ in range(PEOPLE)]
    for worker in workers:
        worker.start()
    yield workers
    stop.set()
    for worker in workers:
        worker.join(60)
    assert [wrong for worker in workers for wrong in worker.wrong] == []


def rotate(server: Slipway, *options: str) -> str:
    """Run the command as an operator does; return the new key's id."""
    command = [PYTHON, "-m", "flask", "--app", "wsgi", "keys", "rotate", *options]
    env = {**os.environ, **server.env}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()[1]


def await_tokens_of(kid: str, workers: list[Worker]) -> None:
    wait_until(lambda: all(kid in worker.kids for worker in workers), "tokens of the new key", 120)


def test_rotation_under_load_signs_nobody_out(servers: Sequence[Slipway]) -> None:
    early = Person(servers)
    kids = [early.kid]
    with working(servers) as workers:
        for server in servers[:2]:
            kids.append(rotate(server))
            await_tokens_of(kids[-1], workers)
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

    people = [early, *(worker.person for worker in workers)]
    stolen = rotate(servers[0], "--stolen")
    wait_until(lambda: early.statuses() == {401}, "the end of the stolen keys")
    assert all(person.statuses() == {401} for person in people)
    assert {
        person.call("POST", "/v1/auth/refresh", person.refresh, at=at).status_code
        for person in people
        for at in range(REPLICAS)
    } == {401}
    late = Person(servers)
    assert late.kid == stolen and late.statuses() == {200}
    for person in (*people, late):
        person.close()


def test_two_rotations_in_a_row_beside_a_frozen_replica_sign_nobody_out(servers: Sequence[Slipway]) -> None:
    """The replica wakes up to tokens of a key that it has never read."""
    early = Person(servers)
    with working(servers[:2]) as workers, ThreadPoolExecutor(SENT_AT_ONCE) as pool:
        rotate(servers[0])
        with frozen(servers[2]):  # for less than the minute after which Gunicorn would replace its worker
            newest = rotate(servers[1])
            await_tokens_of(newest, workers)
            late = Person(servers[:2])
            sent = [pool.submit(status_at, servers[2], late.access) for _ in range(SENT_AT_ONCE)]
            time.sleep(1)
        assert late.kid == newest and {answer.result(60) for answer in sent} == {200}
    assert early.statuses() == {200}
    for person in (early, late, *(worker.person for worker in workers)):
        assert person.statuses() == {200}
        person.close()


def status_at(server: Slipway, token: str) -> int:
    with closing(server.visitor()) as visitor:
        return int(visitor.get(ME, headers={"Authorization": f"Bearer {token}"}).status_code)
