"""Broker connection: URLs, TLS, and no waiting for an unreachable broker."""

from __future__ import annotations

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from config import ConfigError, load
from service.jobs.broker import CeleryWakeup, broker_of, make_app, make_wakeup
from service.runs.recovery.supervisor import NoWakeup
from tests.conftest import RedisServer, redis_in


@pytest.mark.parametrize(
    "redis_url,broker_url,expected",
    [
        ("redis://h:6379/2", "", "redis://h:6379/2"),
        ("rediss://:p@h:6379/0", "", "rediss://:p@h:6379/0"),
        ("rediss://h/0?ssl_ca_certs=/ca&x=1", "", "rediss://h/0?x=1"),
        ("unix:///run/a%20b/redis.sock", "", "redis+socket:///run/a%20b/redis.sock?virtual_host=0"),
        ("unix:///run/redis.sock?db=3", "", "redis+socket:///run/redis.sock?virtual_host=3"),
        ("redis://h", "amqp://u:p@rabbit//", "amqp://u:p@rabbit//"),
        ("redis+cluster://h", "amqps://u:p@rabbit//?ssl_ca_certs=/ca", "amqps://u:p@rabbit//"),
        (
            "redis+cluster://h",
            "redis+sentinel://:%40@a,[::1]:2/main",
            "sentinel://:%40@a:26379/0;sentinel://:%40@[::1]:2/0",
        ),
        (
            "redis+sentinel://u:p@a:1,b/main/4",
            "",
            "sentinel://u:p@a:1/4;sentinel://u:p@b:26379/4",
        ),
    ],
)
def test_broker_urls_for_each_transport(redis_url: str, broker_url: str, expected: str) -> None:
    broker = broker_of(redis_url, broker_url)
    assert broker is not None and broker.url == expected
    if "sentinel" in redis_url + broker_url:
        assert broker.options["master_name"] == "main"
    if "amqp" in broker_url:
        assert broker.options == {}  # its client takes none of Redis's


@pytest.mark.parametrize(
    "url,wanted",
    [
        ("redis://h", None),
        ("rediss://h", {"ssl_cert_reqs": "required", "ssl_check_hostname": True}),
        (
            "rediss://h?ssl_ca_certs=/ca&ssl_check_hostname=no",
            {"ssl_cert_reqs": "required", "ssl_ca_certs": "/ca", "ssl_check_hostname": False},
        ),
        ("rediss://h?ssl_cert_reqs=none", {"ssl_cert_reqs": "none", "ssl_check_hostname": True}),
        ("amqp://h", None),
        ("amqps://h", {"cert_reqs": ssl.CERT_REQUIRED, "server_hostname": None}),
        (
            "amqps://h?ssl_ca_certs=/ca&ssl_certfile=/c&ssl_keyfile=/k&ssl_check_hostname=false",
            {"cert_reqs": ssl.CERT_REQUIRED, "ca_certs": "/ca", "certfile": "/c", "keyfile": "/k"},
        ),
        ("amqps://h?ssl_cert_reqs=none", {"cert_reqs": ssl.CERT_NONE}),
    ],
)
def test_tls_options_verify_certificate_and_host_name(url: str, wanted: dict[str, Any] | None) -> None:
    broker = broker_of("redis+cluster://h", url)
    assert broker is not None and broker.ssl == wanted


def test_sentinel_login_is_separate() -> None:
    broker = broker_of("rediss+sentinel://u:p@a,b/main?sentinel_username=su&sentinel_password=s%23p", "")
    assert broker is not None
    told = broker.options["sentinel_kwargs"]
    assert (told["username"], told["password"], told["ssl"]) == ("su", "s#p", True)
    assert "s#p" not in broker.url and "s%23p" not in broker.url


def test_redis_cluster_needs_a_broker_url() -> None:
    environ = {"APP_ENV": "testing", "REDIS_URL": "redis+cluster://a:1,b:2"}
    assert isinstance(make_wakeup(load(environ)), NoWakeup)
    with pytest.raises(ValueError, match="BROKER_URL"):
        make_app(load(environ))
    assert isinstance(make_wakeup(load({**environ, "BROKER_URL": "amqp://rabbit//"})), CeleryWakeup)


def test_unsupported_broker_url_is_refused() -> None:
    with pytest.raises(ConfigError, match="BROKER_URL"):
        load({"APP_ENV": "testing", "BROKER_URL": "memory://"})


def test_private_webhooks_are_refused_in_production() -> None:
    with pytest.raises(ConfigError, match="WEBHOOK_ALLOW_PRIVATE"):
        load({"APP_ENV": "production", "WEBHOOK_ALLOW_PRIVATE": "1"})


@pytest.fixture
def server(scratch: Path) -> Iterator[RedisServer]:
    with redis_in(scratch / "bell redis") as running:  # a blank in its path
        yield running


def test_wakeup_sends_counts_and_reconnects(server: RedisServer) -> None:
    url = server.url.replace(" ", "%20")
    wakeup = make_wakeup(load({"APP_ENV": "testing", "REDIS_URL": url}))
    assert wakeup.waiting() == 0
    assert wakeup.ring(["run_1", "run_2"]) and wakeup.waiting() == 2
    server.stop()
    assert not wakeup.ring(["run_3"]) and wakeup.waiting() is None
    server.start()
    _quiet(wakeup)
    assert wakeup.ring(["run_4"]) and wakeup.waiting() == 1
    assert server.child is not None
    os.kill(server.child.pid, signal.SIGSTOP)
    assert not wakeup.ring(
        [f"run_{number}" for number in range(1000)]
    )  # it hangs: nobody waits a thousand times
    os.kill(server.child.pid, signal.SIGCONT)
    _quiet(wakeup)
    assert wakeup.ring(["run_5"])


def _quiet(wakeup: object) -> None:
    """End the pause after a broker failure."""
    assert isinstance(wakeup, CeleryWakeup)
    wakeup._paused_until = 0.0
