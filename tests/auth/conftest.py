from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.auth.users import User
from tests.auth.house import PASSWORD, Replica
from tests.conftest import RedisServer, redis_in


@pytest.fixture
def own_redis(scratch: Path, request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """Private Redis server, for tests that stop, wipe and restart it."""
    with redis_in(scratch / f"r{abs(hash(request.node.nodeid)) % 10**8}") as server:
        yield server


@pytest.fixture
def replicas(tmp_path: Path, own_redis: RedisServer) -> Iterator[Callable[..., Replica]]:
    """Makes replicas that share a database and a Redis."""
    made: list[Replica] = []

    def make(**settings: Any) -> Replica:
        made.append(Replica(tmp_path, own_redis.url, **settings))
        return made[-1]

    yield make
    for replica in made:
        replica.close()


@pytest.fixture
def here(replicas: Callable[..., Replica]) -> Replica:
    return replicas()


@pytest.fixture
def there(replicas: Callable[..., Replica]) -> Replica:
    return replicas()


@pytest.fixture
def ada(here: Replica) -> User:
    return here.users.create("ada", PASSWORD)
