"""One measurement: a kind of request to one server, with its times and the CPU time of all its processes."""

from __future__ import annotations

import itertools
import json
import os
import resource
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks import load
from benchmarks.load import Result
from benchmarks.processes import ROOT, Failed, cpu_seconds
from benchmarks.servers import Server
from benchmarks.upstream import Wish

BARE = "bare"  # the call without any service


@dataclass(frozen=True)
class Ask:
    """What is asked: a kind of request, by how many clients at once, how often in all."""

    kind: str  # invoke | hit | stream | relay
    wish: Wish
    clients: int
    requests: int
    spread: float = 0.0  # seconds over which the clients begin
    limit: float = 60.0  # seconds until what is not answered counts as an error
    delay: float = 0.0  # milliseconds that Redis and PostgreSQL are away, where a proxy stands before them
    one_user: bool = False  # where the server knows several
    rest: float = 0.0  # seconds after the last answer whose CPU time counts too


@dataclass
class Figures:
    """One round. Times in milliseconds; CPU milliseconds are per good answer."""

    server: str
    case: str
    round: int
    clients: int
    good: int
    errors: dict[str, int]
    seconds: float
    p50: float
    p99: float
    first_p50: float
    first_p99: float
    cpu_ms: float
    redis_ms: float
    database_ms: float  # PostgreSQL's, where that is the database
    load_share: float  # of one core, what the load generator used: near 1 it is the bottleneck
    upstream_share: float
    load1: float  # the machine's load average before the round
    trips: dict[str, int] = field(default_factory=dict)  # by part, all in all, where a proxy counts them

    public = asdict


def quantile(values: Sequence[float], part: float) -> float:
    """The value that `part` of the values do not pass; 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))] if ordered else 0.0


class Bench:
    """What measurements share: the upstream, and numbers that make every question new."""

    def __init__(self, upstream_port: int, upstream_pid: int) -> None:
        self.port, self.pid = upstream_port, upstream_pid
        self._next = itertools.count(1)

    def stats(self) -> dict[str, Any]:
        """What the upstream has counted since it began."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as client:
            client.sendall(b"GET /stats HTTP/1.1\r\n\r\n")
            seen = b""
            while not seen.endswith(b"}"):
                seen += client.recv(65_536)
        return dict(json.loads(seen.partition(b"\r\n\r\n")[2]))

    def calls(self) -> int:
        return int(self.stats()["calls"])

    def numbers(self, count: int) -> int:
        """The number before `count` unused ones."""
        first = next(self._next)
        self._next = itertools.count(first + count + 1)
        return first

    def measure(self, server: Server | None, case: str, round_number: int, ask: Ask) -> Figures:
        """`server` None: the call without any service."""
        load1, calls_before = os.getloadavg()[0], self.calls()
        proxy = server.proxy if server else None
        if proxy is not None:
            proxy.tell(delay_ms=ask.delay)
        trips = proxy.trips() if proxy else {}
        upstream_before, own_before = cpu_seconds(self.pid), time.process_time()
        if server is None:
            result, used = self._bare(ask)
            redis = database = 0.0
        else:
            before = _used(server)
            result = self.shoot(server, ask)
            time.sleep(ask.rest)
            used, redis, database = (now - then for now, then in zip(_used(server), before, strict=True))
        if ask.kind == "hit" and (calls := self.calls() - calls_before):
            result.errors["asked the model"] += calls
        good, seconds = len(result.totals), max(result.seconds, 1e-9)
        return Figures(
            server=server.name if server else BARE,
            case=case,
            round=round_number,
            clients=ask.clients,
            good=good,
            errors=dict(result.errors),
            seconds=seconds,
            p50=quantile(result.totals, 0.5) * 1000,
            p99=quantile(result.totals, 0.99) * 1000,
            first_p50=quantile(result.firsts, 0.5) * 1000,
            first_p99=quantile(result.firsts, 0.99) * 1000,
            cpu_ms=used * 1000 / good if good else 0.0,
            redis_ms=redis * 1000 / good if good else 0.0,
            database_ms=database * 1000 / good if good else 0.0,
            load_share=(used if server is None else time.process_time() - own_before) / seconds,
            upstream_share=(cpu_seconds(self.pid) - upstream_before) / seconds,
            load1=load1,
            trips={part: now - trips[part] for part, now in proxy.trips().items()} if proxy else {},
        )

    def shoot(self, server: Server, ask: Ask) -> Result:
        if server.proxy is not None:
            server.proxy.tell(delay_ms=ask.delay)
        shots = server.alone if ask.one_user and server.alone else server.shot
        return load.run(
            shots(ask.kind, ask.wish),
            clients=ask.clients,
            requests=ask.requests,
            begin=self.numbers(ask.requests),
            limit=ask.limit,
            spread=ask.spread,
        )

    def _bare(self, ask: Ask) -> tuple[Result, float]:
        begin = self.numbers(ask.requests + 100)
        job = {
            "port": self.port,
            "kind": ask.kind,
            "wish": list(ask.wish),
            "clients": ask.clients,
            "requests": ask.requests,
            "begin": begin,
            "spread": ask.spread,
        }
        command = [sys.executable, "-m", "benchmarks.bare", json.dumps(job)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=ask.limit + 20, check=True)
        except subprocess.SubprocessError as error:
            raise Failed(f"the call without a service: {error}") from None
        found = json.loads(done.stdout)
        errors = Counter(found["errors"])
        return Result(found["totals"], found["firsts"], errors, found["seconds"]), found["cpu"]


def _used(server: Server) -> tuple[float, float, float]:
    """CPU seconds so far of the service, its Redis and its PostgreSQL."""
    parts = (server.redis_pid, server.database_pid)
    redis, database = (cpu_seconds(pid) if pid else 0.0 for pid in parts)
    return sum(cpu_seconds(pid) for pid in server.pids), redis, database


def many_files() -> None:
    """Room for thousands of connections in this process and those it starts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
