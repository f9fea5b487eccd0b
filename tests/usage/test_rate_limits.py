from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.ids import new_id
from service.infra.redis import RedisStore
from service.infra.redis_trip import Trip
from service.types import Usage
from service.usage.rate_limits import LimitWindow, RateLimits, SharedRateLimit, tightest
from tests.conftest import RedisServer

Make = Callable[[str], SharedRateLimit]
NOWHERE = "unix:///nowhere/redis.sock"


@pytest.fixture
def ada() -> str:
    return new_id("usr")


def look(rate: SharedRateLimit, user_id: str) -> LimitWindow | None:
    windows: list[LimitWindow] = []
    trip = Trip(rate._storage._redis_store)
    trip.add(*rate.calls(user_id, windows.append))
    trip.send()
    return tightest(windows)


@pytest.fixture(params=["shared", "alone"])
def make(request: pytest.FixtureRequest, redis_server: RedisServer) -> Iterator[Make]:
    """Makes a replica's view of a rate, with Redis and without."""
    made: list[RedisStore] = []

    def rate(text: str) -> SharedRateLimit:
        made.append(RedisStore(redis_server.url if request.param == "shared" else NOWHERE, max_connections=8))
        return SharedRateLimit(made[-1], "test", text)

    yield rate
    for redis_store in made:
        redis_store.close()


def test_usage_beyond_the_limit_is_counted(make: Make, ada: str) -> None:
    rate = make("100/minute")
    window = look(rate, ada)
    assert window is not None and (window.limit, window.remaining) == (100, 100)
    rate.add(ada, 60)
    window = look(rate, ada)
    assert window is not None and window.remaining == 40
    rate.add(ada, 150)
    window = look(rate, ada)
    assert window is not None and window.remaining == -1
    # 210 in this window: in the next they fade, and are 100 when 110/210 of it are over.
    assert 0 < window.reset - 60 * 110 / 210 <= 60.1
    another = look(rate, new_id("usr"))
    assert another is not None and another.remaining == 100


def test_calls_are_counted_up_to_the_limit_and_no_further(make: Make, ada: str) -> None:
    rate = make("3/minute")
    left = [window.remaining for _ in range(5) if (window := rate.take(ada)) is not None]
    assert left[2:] == [0, -1, -1]
    window = rate.take(ada)
    assert window is not None and 0 < window.reset <= 120


def test_tighter_of_two_rates_is_returned(make: Make, ada: str) -> None:
    rate = make("100/minute;10/hour")
    for _ in range(10):
        rate.take(ada)
    window = rate.take(ada)
    assert window is not None and (window.limit, window.remaining) == (10, -1)


def test_without_a_rate_nothing_is_asked(ada: str) -> None:
    redis_store = RedisStore(NOWHERE, max_connections=1)
    rate = SharedRateLimit(redis_store, "test", "")
    rate.add(ada, 10)
    assert (rate.take(ada), look(rate, ada)) == (None, None)
    assert redis_store.available()  # Redis was not even tried


def test_a_limit_of_n_is_n_over_all_replicas(redis_server: RedisServer, ada: str) -> None:
    speeds = [RedisStore(redis_server.url, max_connections=8) for _ in range(2)]
    replicas = [SharedRateLimit(redis_store, "both", "10/minute") for redis_store in speeds]

    def call(number: int) -> bool:
        window = replicas[number % 2].take(ada)
        return window is not None and window.remaining >= 0

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(call, range(40))) == 10
    replicas[0].add(ada, 5)
    assert look(replicas[1], ada) is not None
    for redis_store in speeds:
        redis_store.close()


def test_tokens_read_from_the_provider_s_cache_are_free_of_the_limit(
    redis_server: RedisServer, ada: str
) -> None:
    redis_store = RedisStore(redis_server.url, max_connections=8)
    rate_limits = RateLimits.of(redis_store, tokens="1000/minute")
    rate_limits.used(ada, Usage(100, 50, cache_read_input_tokens=10_000, cache_creation_input_tokens=200))
    window = look(rate_limits.tokens, ada)
    assert window is not None and window.remaining == 650
    redis_store.close()
