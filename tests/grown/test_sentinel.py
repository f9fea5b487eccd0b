"""Behind Sentinel, with passwords and over TLS: a master dies, freezes, is slow or full under ten requests a second."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.infra.redis import RedisStore
from tests.conftest import Model, Slipway, slipway_server, wait_until
from tests.grown.parts import PASSWORD, SENTINEL_PASSWORD, Node, Sentinels, certificates, sentinels
from tests.grown.smoke import Load, ready, round_trip, task_worker


@pytest.fixture(scope="module", params=["plain", "tls"])
def house(request: pytest.FixtureRequest, scratch: Path, model: Model) -> Iterator[tuple[Slipway, Sentinels]]:
    folder = scratch / f"sentinel-{request.param}"
    tls = certificates(folder / "tls") if request.param == "tls" else None
    settings = {"WEB_CONCURRENCY": "2", "THREADS": "64", "SWEEP_SECONDS": "1", "LIMIT_RUNS": "100000/minute"}
    with (
        sentinels(folder, tls) as parts,
        slipway_server(folder / "slipway", parts.url, model.url, **settings) as server,
        task_worker(server),
    ):
        wait_until(lambda: ready(server)["status"] == "ok", "all parts")
        yield server, parts


def _counted(node: Node) -> int:
    """Count the limits stored on this server, to see whether it was written to."""
    with node.client() as client:
        return sum(1 for _ in client.scan_iter("slipway:rate:*"))


def _forget_counts(node: Node) -> None:
    with node.client() as client:
        for key in client.scan_iter("slipway:rate:*"):
            client.delete(key)


def test_everything_works_with_sentinel(house: tuple[Slipway, Sentinels]) -> None:
    server, parts = house
    round_trip(server, celery=True)
    assert _counted(parts.master()) > 0


def test_wrong_sentinel_password_is_reported(house: tuple[Slipway, Sentinels]) -> None:
    _, parts = house
    url = re.sub(r"sentinel_password=[^&]*", "sentinel_password=wrong", parts.url)
    store = RedisStore(url, max_connections=2)
    assert store.check() == "wrong password of the sentinels"
    store.close()


def test_slow_or_full_master_fails_nothing(house: tuple[Slipway, Sentinels]) -> None:
    server, parts = house
    master = parts.master()
    with Load(server) as load:
        for _ in range(8):
            master.ask("CLIENT", "PAUSE", "300", "ALL")
        master.ask("CONFIG", "SET", "maxmemory", "1")
        wait_until(lambda: ready(server)["redis"].get("reason") == "full", "the reason")
        master.ask("CONFIG", "SET", "maxmemory", "0")
        wait_until(lambda: ready(server)["redis"]["status"] == "ok", "room")
    assert not load.failed, load.verdict()
    assert load.lost() == []


@pytest.mark.parametrize("fault", ["killed", "frozen"])
def test_lost_master_fails_nothing_and_the_new_one_is_used(
    house: tuple[Slipway, Sentinels], fault: str
) -> None:
    server, parts = house
    old = parts.master()
    with server.client() as client, Load(server) as load:
        if fault == "killed":
            old.kill()
        else:
            old.send(signal.SIGSTOP)
        assert client.post("/v1/auth/logout").status_code == 204
        for _ in range(20):
            assert client.get("/v1/auth/me").status_code == 401
        wait_until(lambda: parts.master() is not old, "a new master", 60)
        new = parts.master()
        wait_until(lambda: _written(new), "the new master to take writes")
        _forget_counts(new)
        wait_until(lambda: _counted(new) > 0, "limits to be counted there")
        wait_until(lambda: ready(server)["redis"]["status"] == "ok", "Redis")
    try:
        assert not load.failed, load.verdict()
        assert load.lost() == []
        round_trip(server, celery=True)
        print(load.verdict())
    finally:
        if fault == "killed":
            old.start()
        else:
            old.send(signal.SIGCONT)
        wait_until(lambda: old.role() == "slave", "the old one as a replica", 60)


def _written(node: Node) -> bool:
    try:
        return bool(node.ask("SET", "slipway:test", "x", "EX", "5"))
    except redis.RedisError:
        return False


def test_logs_contain_no_password(house: tuple[Slipway, Sentinels]) -> None:
    """Search all logs; the last test, after every other failure."""
    server, _ = house
    for log in (server.log, server.log.with_name(f"worker-{server.port}.log")):
        text = log.read_text(errors="replace")
        for secret in (PASSWORD, SENTINEL_PASSWORD):
            assert secret not in text and secret.replace("#", "%23") not in text
