"""Reasons in `/ready` for a Redis that refuses: each missing right of the documented user by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

from service.infra.redis import RedisStore
from service.infra.redis_client import connect
from service.infra.redis_rights import missing_for_queue
from tests.conftest import ROOT, RedisServer, redis_in
from tests.grown.parts import PASSWORD, certificates, one

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


def test_each_right_that_only_the_queue_needs_is_named(server: RedisServer, admin: redis.Redis) -> None:
    rules = documented("slipway-task")
    admin.execute_command("ACL", "SETUSER", "slipway", "reset", *rules)
    client = connect(url_of(server), max_connections=1)
    assert missing_for_queue(client) == ""
    for right in sorted({*rules} - {*documented("slipway-speed")} - {"&slipway:jobs:*"}):
        admin.execute_command("ACL", "SETUSER", "slipway", f"-{right[1:]}")
        name = right[1:].partition("|")[0].upper()
        assert re.fullmatch(rf"(may not (write|read)|no scripts): {name}", missing_for_queue(client))
        admin.execute_command("ACL", "SETUSER", "slipway", right)
    admin.execute_command("ACL", "SETUSER", "slipway", "resetchannels")
    assert missing_for_queue(client) == "may not write: PUBLISH"
    client.close()


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


@pytest.mark.parametrize(
    ("scheme", "reason"), [("redis+sentinel", "no sentinel"), ("redis+cluster", "no cluster")]
)
def test_wrong_scheme_is_the_reported_reason(scratch: Path, scheme: str, reason: str) -> None:
    with one(scratch / f"plain-{reason.split()[1]}") as node:
        address = f"127.0.0.1:{node.port}/main?sentinel_password={quote(PASSWORD)}"
        store = RedisStore(f"{scheme}://:{quote(PASSWORD)}@{address}", max_connections=2)
        assert [store.check(), store.check()] == [reason] * 2
        store.close()


def test_another_database_needs_a_right(server: RedisServer, admin: redis.Redis) -> None:
    admin.execute_command("ACL", "SETUSER", "slipway", "reset", *documented("slipway-web"))
    store = RedisStore(f"{url_of(server)}?db=1", max_connections=2)
    assert store.check() == "may not: SELECT"
    store.close()


@pytest.mark.parametrize(
    ("host", "given", "reason"),
    [
        ("127.0.0.1", "ssl_ca_certs={ca}&ssl_certfile={own}.pem&ssl_keyfile={own}.key", ""),
        ("127.0.0.1", "ssl_certfile={own}.pem&ssl_keyfile={own}.key", "certificate not trusted"),
        # 127.1 is as good an address, and stands in no certificate.
        ("127.1", "ssl_ca_certs={ca}", "certificate of another name"),
    ],
)
def test_tls_fault_is_the_reported_reason(scratch: Path, host: str, given: str, reason: str) -> None:
    folder = scratch / f"tls-{abs(hash((host, given)))}"
    tls = certificates(folder / "tls")
    with one(folder / "redis", tls) as node:
        query = given.format(ca=tls.folder / "ca.pem", own=tls.folder / "client")
        store = RedisStore(f"rediss://:{quote(PASSWORD)}@{host}:{node.port}/0?{query}", max_connections=2)
        assert store.check() == reason
        store.close()


def test_a_redis_that_takes_no_more_clients_says_so(server: RedisServer, admin: redis.Redis) -> None:
    """Hang up after the refusal: a client that is still sending may not read the reason."""
    admin.ping()
    before = admin.config_get("maxclients")["maxclients"]
    admin.config_set("maxclients", 1)
    try:
        with ExitStack() as stack:
            stores = [
                stack.enter_context(closing(RedisStore(server.url, max_connections=2))) for _ in range(20)
            ]
            said = {store.check() for store in stores}
    finally:
        admin.config_set("maxclients", before)
    assert "too many clients" in said and said <= {"too many clients", "away"}


def test_keys_written_by_a_check_expire(server: RedisServer, admin: redis.Redis) -> None:
    admin.flushall()
    store = RedisStore(server.url, max_connections=2)
    assert store.check() == ""
    keys = list(admin.scan_iter("*"))
    assert keys and all(0 < admin.ttl(key) <= 60 for key in keys), keys
    store.close()
