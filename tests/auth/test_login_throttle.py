"""Login throttle: limits on guessing, and no lock-out of the owner."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.auth.login_throttle import (
    BUDGET,
    FREE_FAILURES,
    MAX_WAIT,
    MEMORY_SECONDS,
    REFILL,
    LoginAttempt,
    LoginThrottle,
    _InMemory,
    network_of,
)
from service.auth.passwords import _CONCURRENCY
from service.auth.users import User
from service.errors import RateLimited
from service.infra.redis import RedisStore
from service.store import sign_in_addresses
from tests.auth.house import PASSWORD, Replica
from tests.conftest import RedisServer

HOME, OFFICE = "192.0.2.1", "198.51.100.7"


@pytest.fixture(params=["redis", "memory"])
def attempts(request: pytest.FixtureRequest, own_redis: RedisServer) -> Iterator[LoginThrottle]:
    if request.param == "memory":
        own_redis.kill()
    redis_store = RedisStore(own_redis.url, max_connections=8)
    yield LoginThrottle(redis_store)
    redis_store.close()


def waits(attempts: LoginThrottle, attempt: LoginAttempt) -> int:
    """Make a failed attempt; return the seconds to wait, or 0 if it was made."""
    try:
        attempts.begin(attempt)
    except RateLimited as limited:
        assert limited.retry_after is not None
        return int(limited.retry_after)
    attempts.failed(attempt)
    return 0


def test_an_address_waits_after_a_few_wrong_passwords(attempts: LoginThrottle) -> None:
    guess = LoginAttempt("ada", HOME, True)
    assert [waits(attempts, guess) for _ in range(FREE_FAILURES + 2)] == [0] * (FREE_FAILURES + 1) + [1]
    assert (
        waits(attempts, LoginAttempt("ada", OFFICE, True))
        == waits(attempts, LoginAttempt("bob", HOME, True))
        == 0
    )
    attempts.succeeded(guess)
    assert [waits(attempts, guess) for _ in range(FREE_FAILURES + 2)] == [0] * (FREE_FAILURES + 1) + [1]


def test_backoff_grows_to_a_minute() -> None:
    memory, guess, now, seen = _InMemory(), LoginAttempt("ada", HOME, True), 10**12, []
    for _ in range(FREE_FAILURES + 12):
        wait = memory.begin(guess, now)
        seen.append(wait // 1000)
        now += wait
        assert memory.begin(guess, now) == 0
        memory.failed(guess, now)
    assert seen == [0] * (FREE_FAILURES + 1) + [1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 64]
    assert 900 / MAX_WAIT < BUDGET


def test_many_addresses_guess_no_faster_than_one(attempts: LoginThrottle) -> None:
    with ThreadPoolExecutor(8) as pool:
        waited = list(pool.map(lambda n: waits(attempts, LoginAttempt("ada", f"net{n}", False)), range(60)))
    assert waited.count(0) == BUDGET
    assert all(REFILL - 5 <= wait <= REFILL for wait in waited if wait)
    assert waits(attempts, LoginAttempt("ada", HOME, True)) == 0, "a known address has no part in it"
    assert waits(attempts, LoginAttempt("bob", HOME, False)) == 0


def test_right_passwords_are_refunded(attempts: LoginThrottle) -> None:
    for number in range(3 * BUDGET):
        right = LoginAttempt("ada", f"net{number}", False)
        attempts.begin(right)
        attempts.succeeded(right)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.auth.login_throttle._MAX_IN_MEMORY", 10)
    memory = _InMemory()
    for number in range(50):
        guess = LoginAttempt(f"user{number}", HOME, False)
        memory.begin(guess, 1)
        memory.failed(guess, 1)
    assert len(memory._pairs) == len(memory._full_at) == 10


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unix", "unix"),
        ("", ""),
    ],
)
def test_ipv6_addresses_are_limited_by_their_64_prefix(address: str, network: str) -> None:
    assert network_of(address) == network


def login(replica: Replica, address: str, password: str = PASSWORD, username: str = "ada") -> Any:
    body = {"username": username, "password": password}
    return replica.client().post("/v1/auth/login", json=body, environ_base={"REMOTE_ADDR": address})


@pytest.mark.parametrize("redis_is", ["up", "away"])
def test_attacker_cannot_lock_out_the_owner(
    here: Replica, there: Replica, ada: User, own_redis: RedisServer, redis_is: str
) -> None:
    assert login(here, HOME).status_code == 200
    if redis_is == "away":
        own_redis.kill()
        there = here
    refused = [
        login((here, there)[number % 2], f"203.0.113.{number % 200}", "wrong") for number in range(BUDGET + 5)
    ]
    assert [answer.status_code for answer in refused] == [401] * BUDGET + [429] * 5
    assert refused[-1].get_json()["code"] == "rate_limited"
    assert 0 < int(refused[-1].headers["Retry-After"]) <= REFILL
    assert login(there, OFFICE).status_code == 429, "guessing right elsewhere is not told either"
    assert login(here, HOME).status_code == login(there, HOME).status_code == 200


def test_known_address_survives_a_wiped_redis(here: Replica, ada: User) -> None:
    assert login(here, "2001:db8::1").status_code == 200
    here.redis_store.client.flushall()
    for number in range(BUDGET):
        login(here, f"203.0.113.{number}", "wrong")
    assert login(here, HOME).status_code == 429
    assert login(here, "2001:db8::2").status_code == 200, "the same /64"


def test_unknown_name_gets_the_same_answer(here: Replica, ada: User) -> None:
    def told(username: str) -> list[tuple[int, str, str]]:
        answers = [login(here, f"203.0.113.{n % 3}", "wrong", username) for n in range(BUDGET + 2)]
        kept = ("code", "title", "detail")
        return [(a.status_code, *(a.get_json()[name] for name in kept)) for a in answers]  # type: ignore[misc]

    assert told("ada") == told("nobody") == told("not a name")


def test_unknown_name_costs_as_many_queries(here: Replica, ada: User) -> None:
    def queries(username: str) -> int:
        seen: list[Any] = []
        real = here.db.query
        here.db.query = lambda work, **kw: real(lambda tx: work(_Counted(tx, seen)), **kw)  # type: ignore[method-assign,assignment,arg-type]
        try:
            login(here, HOME, "wrong", username)
        finally:
            here.db.query = real  # type: ignore[method-assign]
        return len(seen)

    assert queries("ada") == queries("nobody") == queries("not a name") == 2


class _Counted:
    def __init__(self, tx: Any, seen: list[Any]) -> None:
        self._tx, self._seen = tx, seen

    def row(self, *arguments: Any) -> Any:
        self._seen.append(arguments)
        return self._tx.row(*arguments)


def test_addresses_are_limited_and_hashed(here: Replica, ada: User) -> None:
    for number in range(sign_in_addresses.MAX_ADDRESSES + 5):
        here.db.transact(lambda tx, n=number: sign_in_addresses.remember(tx, ada.id, f"digest-{n}", n))  # type: ignore[misc]
    login(here, HOME)
    with here.db.read() as tx:
        kept = tx.rows(sign_in_addresses.table.select())
    assert len(kept) == sign_in_addresses.MAX_ADDRESSES
    assert all(HOME not in row["digest"] for row in kept)
    assert {f"digest-{n}" for n in range(6)}.isdisjoint(row["digest"] for row in kept)
    assert here.db.transact(lambda tx: sign_in_addresses.expire(tx, before=20, limit=100)) == 14
    here.users.delete(ada.id)
    with here.db.read() as tx:
        assert tx.rows(sign_in_addresses.table.select()) == []


def test_throttled_attempt_does_not_check_the_password(here: Replica, ada: User) -> None:
    assert login(here, HOME).status_code == 200
    statuses = [login(here, HOME, "wrong").status_code for _ in range(FREE_FAILURES + 1)]
    assert statuses == [401] * (FREE_FAILURES + 1)
    assert login(here, HOME).status_code == 429
    assert login(here, OFFICE).status_code == 200


def test_attempt_that_was_not_checked_is_refunded_and_forgives_nothing(attempts: LoginThrottle) -> None:
    guess = LoginAttempt("ada", HOME, False)
    for _ in range(FREE_FAILURES):
        assert waits(attempts, guess) == 0
    for number in range(3 * BUDGET):
        busy = LoginAttempt("ada", f"net{number}" if number else HOME, False)
        attempts.begin(busy)
        attempts.refund(busy)
    assert [waits(attempts, guess) for _ in range(2)] == [0, 1]


def test_overload_costs_nothing_of_the_budget(
    here: Replica, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.auth.passwords._TIMEOUT", 0.0)
    slots = here.users._passwords._slots
    while slots.acquire(blocking=False):
        pass
    busy = [login(here, f"203.0.113.{number}").status_code for number in range(BUDGET + 5)]
    for _ in range(_CONCURRENCY):
        slots.release()
    assert set(busy) == {503} and login(here, OFFICE).status_code == 200


def test_account_is_forgotten_by_its_one_key(attempts: LoginThrottle) -> None:
    for number in range(BUDGET):
        waits(attempts, LoginAttempt("ada", f"net{number}", False))
    waits(attempts, LoginAttempt("bob", HOME, False))
    client = attempts._redis_store.client
    if attempts.forget("ada"):
        assert client.keys("slipway:attempts:*") == [LoginAttempt("bob", HOME, False).key.encode()]
        assert 0 < client.ttl(LoginAttempt("bob", HOME, False).key) <= MEMORY_SECONDS
        assert waits(attempts, LoginAttempt("ada", HOME, False)) == 0


def test_addresses_of_an_account_are_bounded(own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose last wrong password is forgotten go first, and only these."""
    monkeypatch.setattr("service.auth.login_throttle._MOST_FIELDS", 10)
    redis_store = RedisStore(own_redis.url, max_connections=2)
    attempts, fresh = LoginThrottle(redis_store), LoginAttempt("ada", HOME, False)
    waits(attempts, fresh)
    redis_store.client.hset(fresh.key, mapping={f"old-{number}": "1 0 5" for number in range(50)})
    assert waits(attempts, LoginAttempt("ada", OFFICE, False)) == 0
    assert redis_store.client.hlen(fresh.key) == 3  # both, and the budget
    redis_store.client.hset(fresh.key, fresh.field, f"{FREE_FAILURES + 9} 0 5")
    assert [waits(attempts, fresh) for _ in range(2)] == [0, 0], "forgotten after an hour"
    redis_store.close()
