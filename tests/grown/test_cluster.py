"""Redis Cluster: missing at start, TLS, a master killed, frozen or full, all nodes frozen."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.conftest import Model, Slipway, slipway_server, wait_until
from tests.grown.parts import Cluster, Node, certificates, cluster, form, one
from tests.grown.smoke import Load, ready, round_trip, task_worker

SETTINGS = {"WEB_CONCURRENCY": "2", "THREADS": "64", "SWEEP_SECONDS": "1", "LIMIT_RUNS": "100000/minute"}


@pytest.fixture(scope="module")
def house(scratch: Path, model: Model) -> Iterator[tuple[Slipway, Cluster]]:
    """Six nodes with TLS and passwords, and started after the service."""
    folder = scratch / "cluster"
    with (
        cluster(folder, 6, certificates(folder / "tls"), started=False) as parts,
        slipway_server(folder / "slipway", parts.url, model.url, **SETTINGS) as server,
    ):
        yield server, parts


def test_service_started_without_the_cluster_uses_the_cluster_later(house: tuple[Slipway, Cluster]) -> None:
    server, parts = house
    workers = server.workers()
    told = ready(server)["redis"]
    assert (told["status"], told["reason"]) == ("degraded", "away")
    with Load(server) as load:
        with server.client() as client:
            assert client.post("/v1/auth/logout").status_code == 204
            assert client.get("/v1/auth/me").status_code == 401
        form(parts)
        wait_until(lambda: ready(server)["redis"]["status"] == "ok", "the cluster")
    assert not load.failed, load.verdict()
    assert load.lost() == []
    assert server.workers() == workers
    round_trip(server, celery=False)
    for kind in ("rate", "stream", "answer"):
        assert sum(_counted(node, f"slipway:{kind}:*") for node in parts.nodes[:3]) > 0, kind
    assert "Traceback" not in server.log.read_text(errors="replace")


def _counted(node: Node, pattern: str = "slipway:*") -> int:
    with node.client() as client:
        return sum(1 for _ in client.scan_iter(pattern))


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_lost_master_fails_nothing_and_its_replica_is_used(
    house: tuple[Slipway, Cluster], fault: signal.Signals
) -> None:
    server, parts = house
    old, new = parts.nodes[0], parts.nodes[3]
    if new.role() == "master":
        old, new = new, old
    with Load(server) as load, server.client() as client:
        old.send(fault)
        assert client.post("/v1/auth/logout").status_code == 204
        for _ in range(20):
            assert client.get("/v1/auth/me").status_code == 401
        wait_until(lambda: new.role() == "master", "a new master", 60)
        with new.client() as direct:
            for key in direct.scan_iter("slipway:ready:*"):
                direct.delete(key)
        wait_until(lambda: ready(server)["redis"]["status"] == "ok", "the cluster", 60)
        wait_until(lambda: _counted(new) > 0, "keys at the new master")
    print(load.verdict())
    try:
        assert not load.failed, load.verdict()
        assert load.lost() == []
        round_trip(server, celery=False)
    finally:
        if fault is signal.SIGKILL:
            old.start()
        old.send(signal.SIGCONT)
        wait_until(lambda: old.role() == "slave" and parts.ok(), "the old one as a replica", 60)


def test_full_node_is_reported_and_fails_nothing(house: tuple[Slipway, Cluster]) -> None:
    server, parts = house
    masters = [node for node in parts.nodes if node.role() == "master"]
    for full in masters:
        with Load(server) as load, server.client() as client:
            assert client.get("/v1/auth/me").status_code == 200
            full.ask("CONFIG", "SET", "maxmemory", "1")
            wait_until(lambda: ready(server)["redis"].get("reason") == "full", "the reason")
            assert client.post("/v1/auth/logout").status_code == 204
            for _ in range(20):
                assert client.get("/v1/auth/me").status_code == 401
            full.ask("CONFIG", "SET", "maxmemory", "0")
        assert not load.failed, load.verdict()
        assert load.lost() == []
    wait_until(lambda: ready(server)["redis"]["status"] == "ok", "room")


def test_slow_nodes_fail_nothing(house: tuple[Slipway, Cluster]) -> None:
    """Exceed the time-outs: late writes must not be taken for another worker's."""
    server, parts = house
    masters = [node for node in parts.nodes if node.role() == "master"]
    with Load(server) as load:
        for _ in range(3):
            for node in masters:
                node.ask("CLIENT", "PAUSE", "700", "ALL")
            before = load.done
            wait_until(lambda before=before: load.done > before + 15, "15 more", 60)  # type: ignore[misc]
    print(load.verdict())
    assert not load.failed, load.verdict()
    assert load.lost() == []


def test_frozen_cluster_counts_as_redis_down(house: tuple[Slipway, Cluster]) -> None:
    server, parts = house
    with Load(server) as load, ExitStack() as stack:
        for node in parts.nodes:
            stack.enter_context(node.frozen())
        wait_until(lambda: ready(server)["redis"]["status"] == "degraded", "the outage")
        with server.client() as client:
            assert client.post("/v1/auth/logout").status_code == 204
            assert client.get("/v1/auth/me").status_code == 401
        before = load.done
        wait_until(lambda: load.done > before + 80, "80 more", 60)
    print(load.verdict())
    assert not load.failed, load.verdict()
    assert load.lost() == []
    wait_until(lambda: ready(server)["redis"]["status"] == "ok", "the cluster")


def test_three_masters_without_tls_and_a_separate_broker(scratch: Path, model: Model) -> None:
    """Cover masters without replicas, whose loss counts as Redis down; Celery has a separate small Redis."""
    folder = scratch / "cluster-of-three"
    with (
        cluster(folder, 3) as parts,
        one(folder / "queue") as queue,
        slipway_server(
            folder / "slipway",
            parts.url,
            model.url,
            BROKER_URL=queue.url,
            **SETTINGS,
        ) as server,
        task_worker(server),
    ):
        wait_until(lambda: ready(server)["status"] == "ok", "all parts")
        round_trip(server, celery=True)
        assert "live_publish_failed" not in server.log.read_text()
        parts.nodes[1].kill()
        with Load(server) as load:
            wait_until(lambda: ready(server)["redis"]["status"] == "degraded", "the outage")
            before = load.done
            wait_until(lambda: load.done > before + 40, "40 more", 60)
            parts.nodes[1].start()
            wait_until(lambda: ready(server)["redis"]["status"] == "ok", "the cluster", 60)
        print(load.verdict())
        assert not load.failed, load.verdict()
        assert load.lost() == []
        round_trip(server, celery=True)
