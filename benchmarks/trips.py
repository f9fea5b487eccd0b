"""Trips to Redis and PostgreSQL of a hit, an invoke, a stream and an idle process: `python -m benchmarks.trips`.

One process behind nginx, one request at a time. On the way: between the question and the answer (of a stream: its first
text), the least of all requests, since an idle process makes trips too. In all: the mean, with what the process does
after the answer, less what it does when idle.
`--show invoke` prints each burst of one request.
"""

from __future__ import annotations

import argparse
import re
import socket
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet
from benchmarks.load import Shot
from benchmarks.machine import commit
from benchmarks.measure import Ask
from benchmarks.processes import Failed, orderly_end
from benchmarks.production import AWAY
from benchmarks.servers import Server, Setup
from benchmarks.shots import AT_ONCE
from benchmarks.upstream import Wish

ONE = Setup(workers=1, replicas=1, people=1)
KINDS = {"hit": AT_ONCE, "invoke": AT_ONCE, "stream": Wish(deltas=5, every=20, first=60)}
PARTS = ("redis", "postgres")
EACH = 10  # requests of a kind
WARM = 10  # before them: statements are prepared, connections open
PAUSE = 0.2  # seconds after each, for what is done after the answer
IDLE = 9.0  # seconds: three sweeps of the supervisor

Trips = dict[str, float]


def count(fleet: Fleet, each: int = EACH) -> dict[str, Any]:
    """Trips by kind and part: `way` and `all` of a request, `idle` of a process a second."""
    server = fleet.get("slipway", ONE)
    _warm_up(fleet, server)
    idle = _idle(server)
    found: dict[str, Any] = {"idle": idle}
    for kind, wish in KINDS.items():
        shot = server.shot(kind, wish)
        before, began, ways = _trips(server), time.monotonic(), []
        for _ in range(each):
            ways.append(_one(server, shot, fleet.bench.numbers(1)))
            time.sleep(PAUSE)
        took, after = time.monotonic() - began, _trips(server)
        found[kind] = {
            "way": {part: min(way[part] for way in ways) for part in PARTS},
            "all": {part: (after[part] - before[part] - idle[part] * took) / each for part in PARTS},
        }
    return found


def _warm_up(fleet: Fleet, server: Server) -> None:
    for kind in KINDS:
        fleet.bench.shoot(server, Ask(kind, AT_ONCE, 1, WARM, delay=AWAY))
    time.sleep(1)


def _trips(server: Server) -> dict[str, int]:
    if server.proxy is None:
        raise Failed("its Redis and PostgreSQL are not behind a proxy")
    return server.proxy.trips()


def _idle(server: Server) -> Trips:
    before = _trips(server)
    time.sleep(IDLE)
    return {part: (now - before[part]) / IDLE for part, now in _trips(server).items()}


def _one(server: Server, shot: Shot, number: int) -> dict[str, int]:
    """Ask once; return the trips until the answer, or the first text of a stream."""
    request = shot.request(number).replace(b"\r\n", b"\r\nConnection: close\r\n", 1)
    before, way, seen = _trips(server), None, b""
    with socket.create_connection(("127.0.0.1", shot.port), 5) as client:
        client.settimeout(30)
        client.sendall(request)
        while data := client.recv(65_536):
            seen += data
            if shot.first and way is None and shot.first in seen:
                way = _trips(server)
    way = way or _trips(server)
    if (shot.must or shot.end) not in seen:
        raise Failed(f"no good answer: {seen[:300]!r}")
    return {part: way[part] - before[part] for part in PARTS}


# --- each burst -----------------------------------------------------------------------------------------------

PREPARED = re.compile(rb"(_pg3_\d+)\0([^\0]{8,})\0")
NAMED = re.compile(rb"_pg3_\d+")
WORDS = re.compile(rb"[ -~\n]{3,}")


def show(fleet: Fleet, kind: str) -> Iterable[str]:
    """Lines on each burst of one request, after enough of them to have all statements prepared."""
    server = fleet.get("slipway", ONE)
    proxy, shot = server.proxy, server.shot(kind, KINDS[kind])
    if proxy is None:
        raise Failed("its Redis and PostgreSQL are not behind a proxy")
    proxy.tell(record=True)
    _warm_up(fleet, server)
    statements: dict[tuple[int, bytes], bytes] = {}
    for _, _, link, _, text in proxy.tell(record=True)["record"]:
        for name, sql in PREPARED.findall(text.encode("latin-1")):
            statements[link, name] = sql
    began = time.monotonic()
    _one(server, shot, fleet.bench.numbers(1))
    answered = time.monotonic()
    time.sleep(PAUSE)
    for at, part, link, begins, text in proxy.tell(record=False)["record"]:
        burst = text.encode("latin-1")
        for name in NAMED.findall(burst):
            burst = burst.replace(name, b"\n" + statements.get((link, name), name), 1)
        words = " · ".join(word.decode().strip() for word in WORDS.findall(burst))
        when = "after " if at > answered else ""
        trip = part if begins else "  same"
        yield f"{when}{(at - began) * 1000:6.1f} ms  {trip:8} {link:3}  {' '.join(words.split())}"


def lines(found: dict[str, Any]) -> Iterable[str]:
    yield f"commit {commit()}: {AWAY:g} ms, one process behind nginx, {EACH} requests of each kind, alone"
    yield f"{'':22}{'on the way':>22}{'in all':>24}"
    yield f"{'':22}" + f"{'Redis':>10}{'PostgreSQL':>12}" * 2
    for kind in KINDS:
        way, whole = found[kind]["way"], found[kind]["all"]
        what = "stream (first text)" if kind == "stream" else kind
        told = "".join(f"{trips['redis']:10.1f}{trips['postgres']:12.1f}" for trips in (way, whole))
        yield f"{what:22}{told}"
    idle = found["idle"]
    yield f"idle process, a second: Redis {idle['redis']:.1f}, PostgreSQL {idle['postgres']:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.trips", description=__doc__)
    parser.add_argument("--show", choices=KINDS, help="print each burst of one such request")
    asked = parser.parse_args()
    orderly_end()
    with (
        tempfile.TemporaryDirectory(prefix="slb", ignore_cleanup_errors=True) as folder,
        Fleet(Path(folder)) as fleet,
    ):
        for line in show(fleet, asked.show) if asked.show else lines(count(fleet)):
            print(line, flush=True)


if __name__ == "__main__":
    main()
