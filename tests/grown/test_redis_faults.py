"""Redis refuses, pauses, is read-only, full, slow, has another password or takes rights away, under ten requests a
second: alone, behind Sentinel, and one node of a Cluster. No request fails, no task is lost, no ended log-in lives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest
import redis

from tests.conftest import Model, Slipway, slipway_server, wait_until
from tests.grown.parts import PASSWORD, Cluster, Node, Sentinels, cluster, one, sentinels
from tests.grown.slow import SlowWay
from tests.grown.smoke import Load, ready, task_worker

SETTINGS = {"WEB_CONCURRENCY": "2", "THREADS": "64", "SWEEP_SECONDS": "1", "LIMIT_RUNS": "100000/minute"}
ADMIN = {"username": "admin", "password": "pa55-of-admin"}


@dataclass
class House:
    server: Slipway
    master: Callable[[], Node]
    way: SlowWay | None = None


@pytest.fixture(scope="module", params=["alone", "sentinel", "cluster"])
def house(request: pytest.FixtureRequest, scratch: Path, model: Model) -> Iterator[House]:
    folder = scratch / f"faults-{request.param}"
    with ExitStack() as stack:
        way = None
        if request.param == "alone":
            node = stack.enter_context(one(folder / "redis"))
            way = stack.enter_context(SlowWay(node.port).standing())
            url, nodes = node.url.replace(str(node.port), str(way.port)), [node]
            master = lambda: node  # noqa: E731
        else:
            make: Any = sentinels if request.param == "sentinel" else lambda folder: cluster(folder, 6)
            parts: Sentinels | Cluster = stack.enter_context(make(folder / "redis"))
            url, nodes = parts.url, parts.servers if isinstance(parts, Sentinels) else parts.nodes
            master = parts.master if isinstance(parts, Sentinels) else lambda: _master_of(parts.nodes)
        for node in nodes:  # whom no fault touches
            rules = (f">{ADMIN['password']}", "~*", "&*", "+@all")
            node.ask("ACL", "SETUSER", ADMIN["username"], "on", *rules)
        server = stack.enter_context(slipway_server(folder / "slipway", url, model.url, **SETTINGS))
        if request.param != "cluster":  # which carries no queue: the web processes do the tasks
            stack.enter_context(task_worker(server))
        wait_until(lambda: ready(server)["redis"]["status"] == "ok", "Redis")
        yield House(server, master, way)


def _master_of(nodes: list[Node]) -> Node:
    return next(node for node in nodes[:1] + nodes[3:4] if node.role() == "master")


@contextmanager
def _refuses(node: redis.Redis) -> Iterator[None]:
    """Refuse new connections, and close existing ones."""
    node.config_set("maxclients", 1)
    node.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        node.config_set("maxclients", 1000)


@contextmanager
def _pauses(node: redis.Redis) -> Iterator[None]:
    node.execute_command("CLIENT", "PAUSE", "3000", "ALL")
    yield


@contextmanager
def _configured(node: redis.Redis, name: str, value: Any) -> Iterator[None]:
    before = node.config_get(name)[name]
    node.config_set(name, value)
    try:
        yield
    finally:
        node.config_set(name, before)


@contextmanager
def _is_full(node: redis.Redis) -> Iterator[None]:
    with _configured(node, "maxmemory", 1):
        yield


@contextmanager
def _lacks_replicas(node: redis.Redis) -> Iterator[None]:
    with _configured(node, "min-replicas-to-write", 5):
        yield


@contextmanager
def _is_a_replica(node: redis.Redis) -> Iterator[None]:
    if node.info("cluster")["cluster_enabled"]:
        pytest.skip("a cluster makes its replicas itself")
    node.replicaof("127.0.0.1", "1")
    try:
        yield
    finally:
        node.replicaof("NO", "ONE")


@contextmanager
def _has_another_password(node: redis.Redis) -> Iterator[None]:
    node.config_set("requirepass", "another")
    node.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    try:
        yield
    finally:
        node.config_set("requirepass", PASSWORD)


@contextmanager
def _takes_all_rights(node: redis.Redis) -> Iterator[None]:
    node.execute_command("ACL", "SETUSER", "default", "-@all")
    try:
        yield
    finally:
        node.execute_command("ACL", "SETUSER", "default", "+@all")


@contextmanager
def _takes_writes(node: redis.Redis) -> Iterator[None]:
    node.execute_command("ACL", "SETUSER", "default", "-@write")
    try:
        yield
    finally:
        node.execute_command("ACL", "SETUSER", "default", "+@all")


FAULTS = [
    _refuses,
    _pauses,
    _is_full,
    _lacks_replicas,
    _is_a_replica,
    _has_another_password,
    _takes_all_rights,
    _takes_writes,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_redis_fault_fails_no_request(house: House, fault: Callable[[redis.Redis], Any]) -> None:
    with redis.Redis(port=house.master().port, **ADMIN, single_connection_client=True) as node:  # type: ignore[arg-type]
        node.ping()
        _endure(house, lambda: fault(node))


def test_slow_redis_fails_no_request(house: House) -> None:
    if house.way is None:
        pytest.skip("servers tell their own addresses")
    _endure(house, lambda: _delayed(house.way, 0.3))


@contextmanager
def _delayed(way: SlowWay | None, seconds: float) -> Iterator[None]:
    assert way is not None
    way.delay = seconds
    try:
        yield
    finally:
        way.delay = 0.0


def _endure(house: House, fault: Callable[[], Any]) -> None:
    server = house.server
    with ExitStack() as stack:
        before, during = (stack.enter_context(server.client()) for _ in range(2))
        assert before.post("/v1/auth/logout").status_code == 204
        with Load(server) as load:
            _pass(load, 5)
            with fault():
                assert during.post("/v1/auth/logout").status_code == 204
                _is_out(before, during)
                late = stack.enter_context(server.client())
                assert late.get("/v1/auth/me").status_code == 200
                assert late.post("/v1/auth/logout").status_code == 204
                _pass(load, 30)
                print(ready(server)["redis"])
                _is_out(before, during, late)
            _pass(load, 10)
            _is_out(before, during, late)
        print(load.verdict())
        assert not load.failed, load.verdict()
        assert load.lost() == []
    # Of both workers: one that still leaves Redis alone would tell the other of a log-out seconds later.
    wait_until(lambda: {ready(server)["redis"]["status"] for _ in range(12)} == {"ok"}, "Redis")
    assert "Traceback" not in server.log.read_text(errors="replace")


def _pass(load: Load, more: int) -> None:
    before = load.done
    wait_until(lambda: load.done >= before + more, f"{more} more", 60)


def _is_out(*clients: httpx2.Client) -> None:
    """Check both workers, as any may get a request."""
    for client in clients:
        assert [client.get("/v1/auth/me").status_code for _ in range(8)] == [401] * 8
