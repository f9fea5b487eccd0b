"""How a broker is reached, and that nobody waits for one that is not there."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import ConfigError, load
from service.jobs.broker import Bell, address_of, bell_of, make_app
from service.runs.keeper import NoBell
from tests.conftest import RedisServer, redis_in


@pytest.mark.parametrize(
    "redis_url,broker_url,expected",
    [
        ("redis://h:6379/2", "", "redis://h:6379/2"),
        ("rediss://:p@h:6379/0", "", "rediss://:p@h:6379/0?ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_ca_certs=/ca", "", "rediss://h/0?ssl_ca_certs=/ca&ssl_cert_reqs=required"),
        ("rediss://h/0?ssl_cert_reqs=none", "", "rediss://h/0?ssl_cert_reqs=none"),
        ("unix:///run/a%20b/redis.sock", "", "redis+socket:///run/a%20b/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("redis://h", "amqp://u:p@rabbit//", "amqp://u:p@rabbit//"),
        (
            "redis+sentinel://u:p@a:1,b/main/4",
            "",
            "sentinel://u:p@a:1/4;sentinel://u:p@b:26379/4",
        ),
    ],
)
def test_addresses(redis_url: str, broker_url: str, expected: str) -> None:
    address = address_of(redis_url, broker_url)
    assert address is not None and address.url == expected
    if "sentinel" in redis_url:
        assert address.options["master_name"] == "main"
    if "amqp" in broker_url:
        assert address.options == {}  # its client takes none of Redis's


def test_a_cluster_is_no_broker() -> None:
    environ = {"APP_ENV": "testing", "REDIS_URL": "redis+cluster://a:1,b:2"}
    assert isinstance(bell_of(load(environ)), NoBell)
    with pytest.raises(ValueError, match="BROKER_URL"):
        make_app(load(environ))
    assert isinstance(bell_of(load({**environ, "BROKER_URL": "amqp://rabbit//"})), Bell)


def test_what_is_no_broker_is_refused() -> None:
    with pytest.raises(ConfigError, match="BROKER_URL"):
        load({"APP_ENV": "testing", "BROKER_URL": "memory://"})


def test_private_webhooks_are_for_tests_only() -> None:
    with pytest.raises(ConfigError, match="WEBHOOK_ALLOW_PRIVATE"):
        load({"APP_ENV": "production", "WEBHOOK_ALLOW_PRIVATE": "1"})


@pytest.fixture
def server(scratch: Path) -> Iterator[RedisServer]:
    with redis_in(scratch / "bell redis") as running:  # a blank in its path
        yield running


def test_it_rings_counts_and_comes_back(server: RedisServer) -> None:
    url = server.url.replace(" ", "%20")
    bell = bell_of(load({"APP_ENV": "testing", "REDIS_URL": url}))
    assert bell.waiting() == 0
    assert bell.ring(["run_1", "run_2"]) and bell.waiting() == 2
    server.stop()
    assert not bell.ring(["run_3"]) and bell.waiting() is None
    server.start()
    _quiet(bell)
    assert bell.ring(["run_4"]) and bell.waiting() == 1
    assert server.child is not None
    os.kill(server.child.pid, signal.SIGSTOP)
    assert not bell.ring(
        [f"run_{number}" for number in range(1000)]
    )  # it hangs: nobody waits a thousand times
    os.kill(server.child.pid, signal.SIGCONT)
    _quiet(bell)
    assert bell.ring(["run_5"])


def _quiet(bell: object) -> None:
    """The time that a broker is left alone is over."""
    assert isinstance(bell, Bell)
    bell._quiet_until = 0.0
