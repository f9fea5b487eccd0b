"""Replicas that share a name, as in Compose: they come and go, with other addresses, while nginx runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.conftest import free_port, wait_until
from tests.nginx.edge import Edge, Replica, hang_up, resolver
from tests.nginx.names import NameServer

GET, LOGIN, INVOKE = ("GET", "/v1/runs"), ("POST", "/v1/auth/login"), ("POST", "/v1/agents/a/invoke")
NOBODY = ("127.0.0.98", "127.0.0.99")  # addresses of this machine at which nothing listens


class Fleet:
    """Replicas at addresses of their own, one port for all, and the name server that knows them."""

    def __init__(self, names: NameServer) -> None:
        self.names, self.port = names, free_port()
        self.replicas: dict[str, Replica] = {}

    def start(self, address: str) -> Replica:
        self.replicas[address] = Replica(address=(address, self.port)).__enter__()
        self.names.addresses.append(address)
        return self.replicas[address]

    def kill(self, address: str) -> None:
        """Stop a replica whose address stays in DNS for a while."""
        self.replicas.pop(address).__exit__()

    def forget(self, address: str) -> None:
        self.names.addresses.remove(address)

    def stop(self) -> None:
        for replica in self.replicas.values():
            replica.__exit__()


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with NameServer() as names:
        fleet = Fleet(names)
        yield fleet
        fleet.stop()


@pytest.fixture
def edge(fleet: Fleet, tmp_path: Path) -> Iterator[Edge]:
    """Nginx starts before any replica is there."""
    with Edge(tmp_path / "n", [fleet.port], names=fleet.names.port) as edge:
        yield edge


def answered(edge: Edge) -> bool:
    return edge.http.get("/health").status_code == 200


def test_resolver_is_the_containers_own(tmp_path: Path) -> None:
    """Use the first name server of `resolv.conf`: the next may not know the replicas."""
    assert resolver(tmp_path, "127.0.0.11") == "resolver 127.0.0.11 valid=1s ipv6=off;\n"


def test_replica_with_a_new_address_is_found_without_reload(edge: Edge, fleet: Fleet) -> None:
    fleet.start("127.0.0.2")
    wait_until(lambda: answered(edge), "the first address")
    fleet.kill("127.0.0.2")
    fleet.forget("127.0.0.2")
    fleet.start("127.0.0.3")
    wait_until(lambda: answered(edge), "the next address")


def test_added_replica_gets_its_share(edge: Edge, fleet: Fleet) -> None:
    fleet.start("127.0.0.2")
    wait_until(lambda: answered(edge), "the first replica")
    further = [fleet.start(f"127.0.0.{number}") for number in (3, 4)]
    wait_until(lambda: answered(edge) and all(replica.seen for replica in further), "requests at all")


@pytest.mark.parametrize("dead", [1, 2])
def test_one_of_three_replicas_is_enough(edge: Edge, fleet: Fleet, dead: int) -> None:
    """Try all replicas, also for requests that must not be sent twice, until one accepts."""
    for number in range(3 - dead):
        fleet.start(f"127.0.0.{number + 2}")
    fleet.names.addresses += NOBODY[:dead]
    wait_until(lambda: answered(edge), "the replicas")
    for method, path in [GET, LOGIN, INVOKE] * 15:
        assert edge.http.request(method, path, json={}).status_code == 200


@pytest.mark.parametrize(("method", "path"), [GET, INVOKE])
def test_two_of_three_replicas_hang_up(edge: Edge, fleet: Fleet, method: str, path: str) -> None:
    for number, script in enumerate((hang_up, hang_up, None)):
        fleet.start(f"127.0.0.{number + 2}").script = script
    wait_until(lambda: answered(edge), "the replicas")
    assert all(edge.http.request(method, path, json={}).status_code == 200 for _ in range(15))


def test_replacing_all_replicas_fails_no_request(edge: Edge, fleet: Fleet) -> None:
    """Kill each replica in turn, remove its name, and restart it at another address."""
    old = ["127.0.0.2", "127.0.0.3"]
    for address in old:
        fleet.start(address)
    wait_until(lambda: answered(edge), "the replicas")
    with asking(edge, GET, INVOKE) as statuses:
        for number, address in enumerate(old * 2):
            gone = address if number < 2 else f"127.0.0.{number + 2}"
            fleet.kill(gone)
            fleet.forget(gone)
            fresh = fleet.start(f"127.0.0.{number + 4}")
            wait_until(lambda fresh=fresh: fresh.seen, "requests at the new address")  # type: ignore[misc]
        wait_until(lambda: len(statuses) > 20, "some more requests")
    assert set(statuses) == {200}


@contextmanager
def asking(edge: Edge, *requests: tuple[str, str]) -> Iterator[list[int]]:
    """Clients that ask again and again, one for each request; the statuses of all answers (0: there was none)."""
    stop, statuses = threading.Event(), list[int]()

    def ask(method: str, path: str) -> None:
        with httpx2.Client(base_url=edge.url, timeout=30, trust_env=False) as http:
            while not stop.wait(0.005):
                try:
                    statuses.append(http.request(method, path, json={}).status_code)
                except httpx2.HTTPError:
                    statuses.append(0)

    threads = [threading.Thread(target=ask, args=request, daemon=True) for request in requests]
    with ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join, 40)
        stack.callback(stop.set)
        yield statuses


@pytest.mark.parametrize("silent", [False, True])
def test_unresolvable_name_is_503(edge: Edge, fleet: Fleet, silent: bool) -> None:
    """Cover a missing name, and a silent name server, whose time-out is far below this one."""
    fleet.names.silent = silent
    answer = edge.http.get("/v1/runs?token=sesame", timeout=10)
    assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "1"
    fleet.names.silent = False
    fleet.start("127.0.0.2")
    wait_until(lambda: answered(edge), "the replica")
    assert "sesame" not in (edge.folder / "error.log").read_text()
