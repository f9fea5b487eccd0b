"""Redis client: URLs, Sentinel log-in, and commands sent past redis-py."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis

from service.infra.redis_client import Script, answered, connect, read_stream
from tests.conftest import RedisServer, wait_until


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://:pass@localhost:7000/2", {"host": "localhost", "port": 7000, "db": 2, "password": "pass"}),
        ("unix:///tmp/x.sock?db=3", {"path": "/tmp/x.sock", "db": 3}),
        ("redis+unix:///tmp/x.sock?db=3", {"path": "/tmp/x.sock", "db": 3}),
        ("rediss://h?ssl_ca_certs=/ca", {"host": "h", "ssl_ca_certs": "/ca"}),
        (
            "rediss+sentinel://u:p%23@a:1,[::1]/main/2?sentinel_password=s&ssl_ca_certs=/ca",
            {"username": "u", "password": "p#", "db": 2, "ssl_ca_certs": "/ca", "ssl_check_hostname": True},
        ),
    ],
)
def test_urls(url: str, options: dict[str, object]) -> None:
    kept = connect(url, max_connections=4).connection_pool.connection_kwargs
    assert {**kept, **options} == kept


def test_sentinels_of_their_own_login_over_tls() -> None:
    url = "rediss+sentinel://u:p@a:1,[::1]/main?sentinel_username=su&sentinel_password=s%23&ssl_check_hostname=no"
    pool: Any = connect(url, max_connections=4).connection_pool
    kept = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    assert [(one["host"], one["port"]) for one in kept] == [("a", 1), ("::1", 26379)]
    assert {(one["username"], one["password"], one["ssl_check_hostname"]) for one in kept} == {
        ("su", "s#", False)
    }
    assert pool.service_name == "main" and issubclass(pool.connection_class, redis.SSLConnection)


def test_commands_sent_together_leave_no_answer_behind(redis_server: RedisServer) -> None:
    """Raise the error of a failed command, and never reuse its connection with unread answers."""
    client = connect(redis_server.url, max_connections=1)
    answered(client, ("SET", "together", "1"), ("INCR", "together"))
    assert client.get("together") == b"2"
    with pytest.raises(redis.ResponseError):
        answered(client, ("LPUSH", "together", "x"), ("SET", "together", "3"), ("SET", "together", "4"))
    assert client.get("together") == b"4"
    client.close()


def test_a_connection_that_was_closed_meanwhile_is_not_noticed(redis_server: RedisServer) -> None:
    client, script = connect(redis_server.url, max_connections=1), Script("return ARGV[1]")
    assert script(client, [], "first") == b"first"
    other = connect(redis_server.url, max_connections=1)
    other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    assert script(client, [], "second") == b"second"
    other.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    answered(client, ("SET", "closed", "1"))
    assert client.get("closed") == b"1"
    client.close()
    other.close()


def test_abandoned_reply_is_not_taken_for_the_next(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, script = connect(redis_server.url, max_connections=1), Script("return ARGV[1]")
    assert script(client, [], "first") == b"first"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(redis.connection.AbstractConnection, "read_response", raising(KeyboardInterrupt))
        script(client, [], "second")
    assert script(client, [], "third") == b"third"
    with pytest.raises(redis.ResponseError):
        Script("return redis.error_reply('no')")(client, [])
    assert script(client, [], "fourth") == b"fourth"
    client.close()


def raising(error: type[BaseException]) -> Callable[..., None]:
    def raises(*_: object, **__: object) -> None:
        raise error

    return raises


def test_a_read_that_blocks_ends_soon_after_its_time_where_the_server_hangs(
    redis_server: RedisServer,
) -> None:
    client = connect(redis_server.url, max_connections=2)
    client.delete("entries")
    assert read_stream(client, "entries", b"0", 10, 0.1) == []
    client.xadd("entries", {"a": "1", "b": "2"}, id="1-1")
    assert read_stream(client, "entries", b"0", 10, 5) == [(b"1-1", {b"a": b"1", b"b": b"2"})]
    client.execute_command("CLIENT", "PAUSE", "4000", "ALL")
    with pytest.raises(redis.TimeoutError):
        read_stream(client, "entries", b"1-1", 10, 0.1)
    client.close()
    wait_until(redis_server.ping, "the server")


def test_exhausted_pool_waits_for_a_connection(redis_server: RedisServer) -> None:
    client, script = connect(redis_server.url, max_connections=1), Script("return 'mine'")
    pool = client.connection_pool
    taken, said = pool.get_connection(), []
    waits = threading.Thread(target=lambda: said.append(script(client, [])))
    waits.start()
    waits.join(0.05)
    assert not said and waits.is_alive()
    pool.release(taken)
    waits.join(60)
    assert said == [b"mine"]
    taken = pool.get_connection()
    with pytest.raises(redis.ConnectionError, match="No connection available"):
        script(client, [])
    pool.release(taken)
    client.close()


def test_a_child_makes_connections_of_its_own(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(redis_server.url, max_connections=1)
    of_parent = client.client_id()
    assert client.client_id() == of_parent
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as after a fork
    assert client.client_id() != of_parent
    client.close()
