"""Sign-out on two replicas while Redis, then the database, are stopped and started again: answered 204, it holds."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.chaos.conftest import Postgres
from tests.chaos.replicas import Person, replicas
from tests.conftest import Model, RedisServer, Slipway, redis_in, wait_until

LOGOUT = "/v1/auth/logout"
ASKED = (
    "POST",
    "/v1/agents/assistant/invoke",
    {"input": "Is this kept?"},
)  # a cached answer needs no database


@pytest.fixture(scope="module")
def redis(scratch: Path) -> Iterator[RedisServer]:
    with redis_in(scratch / "sign-out-redis") as server:
        yield server


@pytest.fixture(scope="module")
def servers(
    scratch: Path, postgres: Postgres, redis: RedisServer, model: Model
) -> Iterator[Sequence[Slipway]]:
    with replicas(2, scratch / "sign-out", postgres.create("sign_out"), redis, model) as both:
        yield both


def pause(redis: RedisServer, number: int) -> None:
    assert redis.child is not None
    os.kill(redis.child.pid, number)


def asked_for(person: Person, seconds: float) -> set[int]:
    """Return the statuses of a token at both replicas, which ask for a cached answer again and again for so long."""

    def ask(at: int) -> set[int]:
        end, found = time.monotonic() + seconds, set()
        while time.monotonic() < end:
            method, path, body = ASKED
            found.add(int(person.call(method, path, person.access, body, at=at % 2).status_code))
        return found

    with ThreadPoolExecutor(4) as pool:
        return set().union(*pool.map(ask, range(4)))


def ready(person: Person) -> bool:
    answers = [person.call("GET", "/ready", "", at=at).json() for at in (0, 1)]
    return all(
        answer["database"]["status"] == "ok" and answer["redis"]["status"] == "ok" for answer in answers
    )


@pytest.mark.parametrize("frozen", [False, True], ids=["killed", "frozen"])
def test_answered_sign_out_holds(
    servers: Sequence[Slipway], redis: RedisServer, postgres: Postgres, frozen: bool
) -> None:
    gone, cut_off, kept = people = [Person(servers) for _ in range(3)]
    assert all(person.statuses() == {200} for person in people)  # each replica remembers the tokens now
    assert asked_for(kept, 1) == {200}
    pause(redis, signal.SIGSTOP) if frozen else redis.kill()
    try:
        assert kept.statuses() == {200}  # and each replica has noticed
        assert gone.call("POST", LOGOUT, gone.access, at=0).status_code == 204
        assert gone.statuses() == {401} and kept.statuses() == {200}
        postgres.stop("immediate")
        answer = cut_off.call("POST", LOGOUT, cut_off.access, at=1)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert 200 not in asked_for(gone, 1)
    finally:
        pause(redis, signal.SIGCONT) if frozen else redis.start()
    try:
        assert 200 not in asked_for(gone, 12)  # Redis is back, and the database is not
    finally:
        postgres.start()
    wait_until(lambda: ready(kept), "both parts again", 60)
    assert asked_for(gone, 2) == {401}
    assert gone.call("POST", "/v1/auth/refresh", gone.refresh).status_code == 401
    assert kept.statuses() == {200}
    # Sent again. Where its first COMMIT had come through, the log-in has ended already.
    assert cut_off.call("POST", LOGOUT, cut_off.access).status_code in (204, 401)
    assert asked_for(cut_off, 2) == {401}
    for person in people:
        person.close()


def test_reuse_of_a_refresh_token_ends_the_log_in_everywhere(servers: Sequence[Slipway]) -> None:
    thief, other = Person(servers), Person(servers)
    spent = thief.refresh
    with ThreadPoolExecutor(8) as pool:
        answers = list(
            pool.map(lambda at: thief.call("POST", "/v1/auth/refresh", spent, at=at % 2), range(8))
        )
    won = [answer for answer in answers if answer.status_code == 200]
    assert len(won) == 1 and {answer.status_code for answer in answers} == {200, 401}
    assert thief.statuses() == {401}
    thief.take(won[0])
    assert thief.statuses() == {401}
    assert thief.call("POST", "/v1/auth/refresh", thief.refresh).status_code == 401
    assert other.statuses() == {200}
    for person in (thief, other):
        person.close()
