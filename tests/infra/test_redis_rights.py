"""What `/ready` says of a Redis that says no: each right of the documented user is missed by its name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.infra.redis import RedisStore
from tests.conftest import ROOT, RedisServer, redis_in

OPTIONAL = {"+info"}  # see the page
ELSEWHERE = {"+llen", "+lpush", "+multi", "+exec"}  # Celery's, see tests/grown


def documented(name: str) -> list[str]:
    """The rules of a user in docs/growing.md."""
    page = (ROOT / "docs" / "growing.md").read_text()
    (line,) = re.findall(rf"^user {name} (.*)$", page, re.MULTILINE)
    return str(line).split()


@pytest.fixture(scope="module")
def server(scratch: Path) -> Iterator[RedisServer]:
    with redis_in(scratch / "rights") as running:
        yield running


@pytest.fixture
def admin(server: RedisServer) -> Iterator[redis.Redis]:
    client = redis.Redis.from_url(server.url)
    yield client
    for name, value in (("maxmemory", 0), ("min-replicas-to-write", 0)):
        client.config_set(name, value)
    client.replicaof("NO", "ONE")
    client.close()


def url_of(server: RedisServer, password: str = "password") -> str:
    return server.url.replace("unix://", f"unix://slipway:{password}@")


@pytest.mark.parametrize("name", ["slipway-web", "slipway-task", "slipway-speed"])
def test_each_missing_right_is_named(server: RedisServer, admin: redis.Redis, name: str) -> None:
    rules = documented(name)
    admin.execute_command("ACL", "SETUSER", "slipway", "reset", *rules)
    store = RedisStore(url_of(server), max_connections=2)
    assert store.check() == ""
    tried = [rule for rule in rules if rule[0] == "+" and "|" not in rule]
    for right in {*tried} - OPTIONAL - ELSEWHERE - {"+brpop", "+rpush", "+watch", "+unwatch", "+publish"}:
        admin.execute_command("ACL", "SETUSER", "slipway", f"-{right[1:]}")
        said = store.check()
        assert re.fullmatch(r"may not (write|read): \w+|no scripts: \w+( with \w+)?", said), (right, said)
        assert said.split()[-1] == right[1:].upper()
        admin.execute_command("ACL", "SETUSER", "slipway", right)
    assert store.check() == ""
    admin.execute_command("ACL", "SETUSER", "slipway", "resetkeys", "~other:*")
    assert store.check().startswith("may not")
    store.close()


@pytest.mark.parametrize(
    "change,reason",
    [
        (("CONFIG", "SET", "maxmemory", "1"), "full"),
        (("CONFIG", "SET", "min-replicas-to-write", "1"), "too few replicas"),
        (("REPLICAOF", "127.0.0.1", "1"), "read-only"),
    ],
)
def test_a_redis_that_takes_no_writes_says_why(
    server: RedisServer, admin: redis.Redis, change: tuple[str, ...], reason: str
) -> None:
    store = RedisStore(server.url, max_connections=2)
    assert store.check() == ""
    admin.execute_command(*change)
    assert store.check() == reason
    assert store.check() == reason  # also while it is left alone
    store.close()


def test_a_wrong_password_is_no_outage_to_look_for(server: RedisServer, admin: redis.Redis) -> None:
    admin.execute_command("ACL", "SETUSER", "slipway", "reset", "on", ">password")
    store = RedisStore(url_of(server, "wrong"), max_connections=2)
    assert [store.check(), store.check()] == ["wrong password"] * 2
    store.close()


def test_what_was_written_for_a_look_goes_by_itself(server: RedisServer, admin: redis.Redis) -> None:
    admin.flushall()
    store = RedisStore(server.url, max_connections=2)
    assert store.check() == ""
    keys = list(admin.scan_iter("*"))
    assert keys and all(0 < admin.ttl(key) <= 60 for key in keys), keys
    store.close()
